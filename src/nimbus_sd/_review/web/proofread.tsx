// The bar under the tissue: states for the selected cell, the next doubtful one, how far one is.
import { Choose } from "./charts";
import * as state from "./state";

/** Order of the buttons, each with its key. */
export const GIVE: [number, string, string][] = [
  [1, "-", "Negative"], [2, "_", "Likely negative"], [3, "?", "Undetermined"], [4, "=", "Likely positive"], [5, "+", "Positive"],
];

export const give = (to: number) => state.selected.value !== null && void state.label([state.selected.value], to);

export function Proofread() {
  const [marker, row] = [state.marker.value, state.selected.value];
  if (!marker) return null;
  const labels = state.labels.value;
  const now = row === null ? 0 : labels?.[row] ?? 0;
  const usable = state.writable.value && row !== null && labels !== null;
  const judged = state.judged.value;
  return (
    <section class="proofread" aria-label="Proofreading">
      <div class="row">
        <span class="states" role="group" aria-label={`Is the selected cell positive for ${marker.name}?`}>
          {GIVE.map(([to, key, name]) => (
            <button style={{ "--state": state.LABELS[to - 1] }} aria-pressed={now === to} disabled={!usable} onClick={() => give(now === to ? 0 : to)}
              title={now === to ? "Click to take it away" : name} aria-label={name}>
              {name.replace("y negative", "y −").replace("y positive", "y +")} <kbd>{key}</kbd>
            </button>
          ))}
        </span>
        <span class="space" />
        <button class="primary" onClick={state.next}>Next {state.blind.value ? "cell" : "doubtful"} <kbd>n</kbd></button>
      </div>
      <div class="row hint">
        <span aria-live="polite" title={state.reason.value}>
          <b>{marker.name}</b>:{" "}
          {row === null ? "click a cell, or take the next" : state.reason.value || "give this cell a state"}
        </span>
        <span class="space" />
        <span class="count" title="Labels of this marker here">{judged.given} labelled, {judged.positive} positive</span>
        <Choose label="A click" of={state.brush} disabled={!state.writable.value}
          options={[[0, "selects"], ...GIVE.map(([to, , name]): [number, string] => [to, "gives: " + name.toLowerCase()])]} />
        <label><input type="checkbox" checked={state.advance.value}
          onChange={(event) => (state.advance.value = event.currentTarget.checked)} /> go on to the next</label>
      </div>
    </section>
  );
}
