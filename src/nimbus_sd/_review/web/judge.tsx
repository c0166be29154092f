// The tab of gold labels: whole regions that were drawn at random, judged blind to scores, by one annotator or two.
import { effect, signal } from "@preact/signals";
import * as api from "./api";
import * as state from "./state";

const known = signal<api.Judging | null>(null);
const refresh = () => api.judging().then((found) => (known.value = found), state.told);
effect(() => {
  void [state.unsaved.value, state.undoStep.value];
  if (state.tab.value === "Judge" && state.start.value) void refresh();
});

function begin(region: string, layer: string) {
  state.region.value = state.start.value!.regions.findIndex((one) => one.name === region);
  [state.labelLayer.value, state.reason.value] = [layer, ""];
  state.selectCell(null);
  starting.value = true;
}
const starting = signal(false);
effect(() => { // the first cell, once it is known which ones were judged
  if (!starting.value || !state.labels.value) return;
  starting.value = false;
  setTimeout(state.next);
});
effect(() => { // a dispute that was settled gives way to the next one
  const [list, at] = [known.peek()?.disputed ?? [], settling.value];
  if (!at || state.labelLayer.value !== "gold" || !decision(at)) return;
  const open = list.find((one) => one !== at && !decision(one));
  settling.value = null;
  if (open && state.advance.peek()) setTimeout(() => settle(open));
});
type Dispute = api.Judging["disputed"][number];
const settling = signal<Dispute | null>(null);
const decision = (cell: Dispute) => state.labelsOf("gold", cell.marker)?.[cell.row] ?? 0;
const end = () => ((state.labelLayer.value = "gold_training"), state.selectCell(null));

function settle(cell: Dispute) {
  state.selectMarker(cell.marker);
  state.labelLayer.value = "gold";
  state.selectCell(cell.row, true);
  settling.value = decision(cell) ? null : cell;
}

export function Judge() {
  const of = known.value;
  if (!of) return <p class="hint" role="status">Reading what was judged …</p>;
  const who = state.annotator.value;
  const layer = "gold:" + who;
  const [marker, able] = [state.markerName.value, state.writable.value];
  const drawn = of.regions.filter((one) => one.evaluation);
  const word = (label: number) => state.STATES[label] ?? "none";
  return (
    <>
      <h2>Gold labels</h2>
      <p class="hint">Scores are judged by whole regions that were drawn at random and labelled by eye, blind to the scores. They are never learned from.</p>
      <label>Annotator <input value={who} disabled={!able} onChange={(event) => {
        const given = event.currentTarget.value.trim();
        if (given) void state.act({ do: "annotator", name: given }).then((kept) => kept && (state.annotator.value = given));
      }} /></label>
      {of.refused && <p class="learned">{of.refused}</p>}
      {drawn.map((region) => {
        const mine = region.judged[who]?.[marker] ?? 0;
        const others = Object.entries(region.judged).filter(([name]) => name !== who);
        const here = state.labelLayer.value === layer && state.start.value!.regions[state.region.value].name === region.name;
        return (
          <section class="judged">
            <h3>{region.name}</h3>
            <progress max={region.cells} value={mine} aria-label={`Cells judged for ${marker}`} />
            <p class="hint">{mine.toLocaleString("en")} of {region.cells.toLocaleString("en")} cells judged for {marker} by {who}
              {others.map(([name, by]) => `; ${by[marker] ?? 0} by ${name}`)}</p>
            {here ? <button onClick={end}>Stop judging</button>
              : <button class="primary" disabled={!able} onClick={() => begin(region.name, layer)}>Judge {marker}</button>}
          </section>
        );
      })}
      {state.blind.value && <p class="learned">Judging <b>{marker}</b> blind: the key n takes the next cell. Scores, calls and clusters are hidden until you stop.</p>}
      {!of.refused && of.free.length > 0 && <button disabled={!able} onClick={() => state.act({ do: "draw", n: drawn.length + 1 }).then(refresh)}>
        Draw {drawn.length ? "another" : "a"} region of {of.free.length}</button>}
      {of.agreement.length > 0 && (
        <><h3>Agreement</h3>
          <table class="counts"><tr><th>Marker</th><th>cells</th><th>agree</th><th>kappa</th></tr>
            {of.agreement.map((row) => <tr><th>{row.marker}</th><td>{row.cells}</td><td>{Math.round(100 * row.agree)} %</td>
              <td>{row.kappa === null ? "none" : row.kappa.toFixed(2)}</td></tr>)}</table></>
      )}
      {of.disputed.length > 0 && (
        <><h3>Disputed cells: {of.disputed.length}</h3>
          <p class="hint">Click one and give it the state that holds.</p>
          <ul class="disputed">{of.disputed.slice(0, 100).map((cell) => (
            <li><button aria-pressed={state.selected.value === cell.row} onClick={() => settle(cell)}>
              {cell.marker}: {Object.entries(cell.states).map(([name, label]) => `${name} ${word(label)}`).join(", ")}</button></li>
          ))}</ul>
          {state.labelLayer.value === "gold" && <button onClick={end}>Stop settling</button>}</>
      )}
    </>
  );
}
