// The tab of gold labels: whole regions that were drawn at random, judged blind to scores, by one annotator or more.
import { effect, signal } from "@preact/signals";
import * as api from "./api";
import * as state from "./state";

type Dispute = api.Judging["disputed"][number];
const known = signal<api.Judging | null>(null);
const starting = signal(false); // the first cell is shown once it is known which ones are judged
const settling = signal<Dispute | null>(null);
const refresh = () => api.judging().then((found) => (known.value = found), state.told);
const decision = (cell: Dispute) => state.labelsOf("gold", cell.marker)?.[cell.row] ?? 0;
effect(() => {
  void [state.unsaved.value, state.undoStep.value];
  if (state.tab.value === "Judge" && state.start.value) void refresh();
});
effect(() => {
  if (!starting.value || !state.labels.value) return;
  starting.value = false;
  setTimeout(state.next);
});
effect(() => { // a dispute that is settled gives way to the next one
  const cell = settling.value;
  if (!cell || state.labelLayer.value !== "gold" || !decision(cell)) return;
  const open = known.peek()?.disputed.find((one) => one.row !== cell.row && !decision(one));
  setTimeout(() => (open && state.advance.peek() ? settle(open) : (settling.value = null)), 300);
});

function begin(region: string, layer: string) {
  state.region.value = state.start.value!.regions.findIndex((one) => one.name === region);
  state.labelLayer.value = layer;
  state.selectCell(null);
  starting.value = true;
}
function settle(cell: Dispute) {
  state.selectMarker(cell.marker);
  state.labelLayer.value = "gold";
  state.selectCell(cell.row, true);
  settling.value = decision(cell) ? null : cell;
}
const end = () => ((state.labelLayer.value = "gold_training"), state.selectCell(null));
const name = (given: string) => given && given !== state.annotator.peek() &&
  void state.act({ do: "annotator", name: given }).then((kept) => kept && [end(), (state.annotator.value = given)]);

export function Judge() {
  const of = known.value;
  if (!of) return <p class="hint" role="status">Reading what was judged …</p>;
  const [who, marker, able] = [state.annotator.value, state.markerName.value, state.writable.value];
  const layer = "gold:" + who;
  const drawn = of.regions.filter((one) => one.evaluation);
  const chip = (label: number) => <b class="state"><i style={{ background: state.LABELS[label - 1] ?? "#ccc" }} />{state.STATES[label] ?? "none"}</b>;
  return (
    <>
      <h2>Gold labels <small>to judge the scores by</small></h2>
      {state.blind.value ? (
        <p class="learned"><b>{marker}</b>: scores, calls and clusters are hidden until you stop. {state.labelLayer.value === "gold"
          ? "Give each disputed cell the state that holds." : "Give every cell a state by eye; the next one comes by itself, or with n."}{" "}
          <button onClick={end}>Stop</button></p>
      ) : <p class="hint">All cells of regions that were drawn at random, judged by eye and blind to the scores. They are never learned from. Choose
        the marker at the left.</p>}
      <label>Annotator <input value={who} disabled={!able} onChange={(event) => name(event.currentTarget.value.trim())} /></label>
      <p class="hint">For a second pass, another person enters another name and judges the same regions.</p>
      {of.refused && <p class="learned bad">{of.refused}</p>}
      {drawn.map((region) => {
        const people = [who, ...Object.keys(region.judged).filter((one) => one !== who)];
        const here = state.labelLayer.value === layer && state.start.value!.regions[state.region.value].name === region.name;
        return (
          <section class="judged">
            <h3>{region.name}: {marker}</h3>
            {people.map((one) => {
              const n = region.judged[one]?.[marker] ?? 0;
              return <label>{one}<progress max={region.cells} value={n} /><span>{n.toLocaleString("en")} of {region.cells.toLocaleString("en")}</span></label>;
            })}
            {!here && <button class="primary" disabled={!able || !who} onClick={() => begin(region.name, layer)}>Judge {marker} as {who}</button>}
          </section>
        );
      })}
      {!of.refused && !state.blind.value && of.free.length > 0 && <p><button disabled={!able} onClick={() => state.act({ do: "draw", n: drawn.length + 1 }).then(refresh)}>
        Draw {drawn.length ? "another" : "a"} region of {of.free.length}</button></p>}
      {of.agreement.length > 0 && (
        <><h3>Agreement</h3>
          <table class="counts"><tr><th>Marker</th><th>cells</th><th>agree</th><th title="1: always agree, 0: as often as by chance">kappa</th></tr>
            {of.agreement.map((row) => <tr><th>{row.marker}</th><td>{row.cells}</td><td>{Math.round(100 * row.agree)} %</td>
              <td>{row.kappa?.toFixed(2) ?? "none"}</td></tr>)}</table></>
      )}
      {of.disputed.length > 0 && (
        <><h3>Disputed cells: {of.disputed.filter((cell) => !decision(cell)).length} of {of.disputed.length} open</h3>
          <ul class="disputed">{of.disputed.slice(0, 100).map((cell) => (
            <li><button aria-pressed={state.selected.value === cell.row && marker === cell.marker} disabled={!able} onClick={() => settle(cell)}>
              <b>{cell.marker}</b>{Object.entries(cell.states).map(([one, label]) => <span>{one} {chip(label)}</span>)}
              {decision(cell) > 0 && <span>settled {chip(decision(cell))}</span>}</button></li>
          ))}</ul></>
      )}
    </>
  );
}
