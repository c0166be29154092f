// The tab of fine-tuning: the network learns from the corrections, in the background; old and new scores are compared.
import { effect, signal } from "@preact/signals";
import * as api from "./api";
import * as state from "./state";

const known = signal<api.Tuning | null>(null);
let asking = 0;
const ask = () => api.tuning().then(told, state.told);
function told(found: api.Tuning) {
  const fresh = found.state === "done" && known.peek()?.state === "running";
  known.value = found;
  clearTimeout(asking);
  if (found.state === "running") asking = window.setTimeout(ask, 1500);
  if (fresh) void state.open().then(() => found.layer && (state.layer.value = found.layer));
}
effect(() => {
  void state.unsaved.value;
  if (state.tab.value === "Fine-tune" && state.start.value) void ask();
});
const run = (action: "start" | "stop") => api.tune(state.page.peek() ?? "", action).then(told, state.told);
async function finish(step: "keep" | "drop", layer: string) {
  if (!(await state.act({ do: step, layer }))) return;
  if (step === "drop") state.layer.value = state.start.value!.layer;
  await state.open();
  await ask();
}

/** Shows the scores of the first network (a) or of the tuned one (b) on the tissue. */
export function compare(which: string) {
  const [first, tuned] = [state.start.value!.layer, known.value?.layer];
  if (tuned && !state.blind.value) state.layer.value = which === "a" ? first : tuned;
}

/** F1 of each marker before (ring) and after (dot). */
function Report({ rows }: { rows: NonNullable<api.Tuning["report"]> }) {
  const low = Math.max(0, Math.floor(10 * Math.min(...rows.flatMap((row) => [row.f1_before, row.f1_after].filter((one) => one !== null)))) / 10 - 0.05);
  const x = (f1: number) => 5 + (90 * (f1 - low)) / (1 - low);
  return (
    <table class="counts report">
      <tr><th>Marker</th><th>F1, {low.toFixed(2)} to 1</th><th>before</th><th>after</th></tr>
      {rows.map((row) => (
        <tr><th title={`${row.cells} cells, judged by ${row.truth} labels`}>{row.marker}</th>
          <td>{row.f1_before !== null && row.f1_after !== null && (
            <svg width={100} height={14} aria-hidden="true">
              <line x1={x(row.f1_before)} x2={x(row.f1_after)} y1={7} y2={7} />
              <circle cx={x(row.f1_before)} cy={7} r={3.5} /><circle class={row.f1_after < row.f1_before ? "worse" : "better"} cx={x(row.f1_after)} cy={7} r={3.5} />
            </svg>)}</td>
          <td>{row.f1_before?.toFixed(3) ?? "none"}</td><td>{row.f1_after?.toFixed(3) ?? "none"}</td></tr>
      ))}
    </table>
  );
}

export function Tuning() {
  const of = known.value;
  if (!of) return <p class="hint" role="status">Asking …</p>;
  const able = state.writable.value;
  return (
    <>
      <h2>Fine-tune the network</h2>
      <p class="hint">It learns from your labels of single cells, and from calls that are sure, on some regions; others say whether it helped. The scores that
        you have stay: new ones get a name of their own.</p>
      {of.state === "refused" && <p class="learned">{of.message}</p>}
      {of.state === "failed" && <p class="learned bad" role="alert">It failed: {of.message}</p>}
      {of.state === "running" && (
        <><progress max={1} value={of.progress} aria-label="Progress" />
          <p class="hint" aria-live="polite">{of.message}{of.epoch ? `, step ${of.epoch}` : ""} · you can go on reviewing</p>
          <button onClick={() => run("stop")}>Stop</button></>
      )}
      {(of.state === "none" || of.state === "failed") && <button class="primary" disabled={!able} onClick={() => run("start")}>Start</button>}
      {of.state === "done" && of.report && (
        <><h3>On regions that it did not learn from</h3>
          <Report rows={of.report} />
          <p class="hint">By {[...new Set(of.report.map((row) => row.truth))].join(", ")} labels{of.report.some((row) => row.truth.includes("silver")) && ": silver are your labels and the sure calls"}.</p>
          <p class="row"><span>Tissue</span>{["a", "b"].map((which) => (
            <button aria-pressed={(state.layer.value === of.layer) === (which === "b")} onClick={() => compare(which)}>
              {which === "a" ? "old scores" : "new scores"} <kbd>{which}</kbd></button>
          ))}</p>
          <p class="row"><button disabled={!able} onClick={() => finish("keep", of.layer!)}>Keep the new scores</button>
            <button disabled={!able} onClick={() => finish("drop", of.layer!)}>Drop them</button></p></>
      )}
    </>
  );
}
