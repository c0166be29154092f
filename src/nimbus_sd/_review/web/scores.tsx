// The tab of scores: their histogram, the threshold, how many cells it makes positive, and the cells beside it.
import { computed } from "@preact/signals";
import { Crop, Threshold } from "./charts";
import * as state from "./state";

const BINS = 60;
const NEAR = 6; // cells shown on either side of the threshold
const histogram = computed(() => {
  const counts = new Uint32Array(BINS);
  const scores = state.scores.value ?? [];
  for (let row = 0; row < scores.length; row++)
    if (scores[row] >= 0) counts[Math.min(Math.floor(scores[row] * BINS), BINS - 1)]++;
  return counts;
});
/** Scores in order, of all cells and of the region's: how many lie where is then found at once while a threshold moves. */
const ordered = computed(() => {
  const [scores, regions] = [state.scores.value ?? new Float32Array(), state.cells.value?.region ?? []];
  const all = scores.filter((score) => score >= 0);
  return { all: all.sort(), here: scores.filter((score, row) => score >= 0 && regions[row] === state.region.value).sort() };
});
/** How many are below a score. */
function below(sorted: Float32Array, score: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < score) low = middle + 1;
    else high = middle;
  }
  return low;
}
/** [positive, scored, doubtful] */
const count = (sorted: Float32Array) => [sorted.length - below(sorted, Math.fround(state.threshold.value)), sorted.length,
  below(sorted, 0.75 + 1e-7) - below(sorted, 0.25)];
/** The cells nearest to the threshold, above and below, nearest first. Waits for the end of a drag. */
const beside = computed(() => {
  const scores = state.scores.value ?? [];
  const threshold = state.marker.value?.threshold ?? 0.5;
  const sides: [number[], number[]] = [[], []];
  for (let row = 0; row < scores.length; row++) {
    if (!(scores[row] >= 0) || state.cells.value?.region[row] === 65535) continue;
    const side = sides[scores[row] >= threshold ? 0 : 1];
    const off = Math.abs(scores[row] - threshold);
    if (side.length === NEAR && off >= Math.abs(scores[side[NEAR - 1]] - threshold)) continue;
    const place = side.findIndex((other) => Math.abs(scores[other] - threshold) > off);
    side.splice(place < 0 ? side.length : place, 0, row);
    side.length = Math.min(side.length, NEAR);
  }
  return sides;
});
const number = (count: number) => count.toLocaleString("en");

export function Scores() {
  const marker = state.marker.value;
  if (state.blind.value) return <p class="hint">Scores are hidden while regions are judged.</p>;
  if (!marker) return <p class="hint">Choose a marker.</p>;
  if (!state.scores.value) return <p class="hint" role="status">Reading the scores of {marker.name} …</p>;
  const rows: [string, number[]][] = [["All cells", count(ordered.value.all)]];
  if (state.start.value!.regions.length > 1) rows.push(["This region", count(ordered.value.here)]);
  return (
    <>
      <h2>{marker.name} <small>{state.layer.value}, square-root scale</small></h2>
      <Threshold counts={histogram.value} />
      <table class="counts" aria-live="polite">
        <tr><th /><th>positive</th><th>share</th><th>doubtful</th></tr>
        {rows.map(([name, [positive, scored, doubtful]]) => (
          <tr><th>{name}</th><td>{number(positive)}</td><td>{((100 * positive) / (scored || 1)).toFixed(1)} %</td>
            <td>{number(doubtful)}</td></tr>
        ))}
      </table>
      {marker.learned && <p class="learned"><b>Learned</b> {marker.learned}</p>}
      {["Just above", "Just below"].map((title, side) => (
        <>
          <h3><i class={side ? "negative" : "positive"} />{title}</h3>
          <div class="crops">
            {beside.value[side].map((row) => <Crop key={row} row={row} note={state.scores.value![row].toFixed(3)} />)}
          </div>
        </>
      ))}
    </>
  );
}
