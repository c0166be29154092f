// The centre: the viewer, what it is told to draw, and the controls and legends over it.
import { computed, effect, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import * as api from "./api";
import { Choose } from "./charts";
import * as state from "./state";
import { type View, Viewer } from "./viewer";

export const viewer = signal<Viewer | null>(null);
const view = state.kept<(View & { region: number }) | null>("view", null);
const pointer = signal<[number, number]>([0, 0]);
const numbers = signal<api.Cell | null>(null); // of the cell under the pointer, or else of the selected one
const contrasts = signal<Record<string, { top: number; low: number; high: number }>>({}); // by "region channel"

// Viridis without its darkest part, which is not seen on dark tissue.
const VIRIDIS = ["#4a4fa3", "#3b6397", "#31788e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const CALLS: [string, string][] = [["Negative", "#56b4e9"], ["Negative, doubtful", "#b7def6"], ["Positive, doubtful", "#f6d795"], ["Positive", "#e69f00"]];
const CALL_COLORS = CALLS.map(([, color]) => color);

/** A number for each cell (scores, if calls are shown) and the colour of each; 0 has none. With it the words of the legend. */
const colouring = computed<{ values: Uint8Array | Uint16Array | Float32Array | null; palette: string[]; legend: [string, string][] }>(() => {
  const [what, scores] = [state.blind.value ? "label" : state.paint.value, state.scores.value];
  if (what === "label")
    return { values: state.labels.value, palette: state.LABELS, legend: state.STATES.slice(1).map((name, at) => [name, state.LABELS[at]]) };
  if (scores && what === "call") return { values: scores, palette: CALL_COLORS, legend: CALLS };
  if (scores && what === "score") {
    const values = new Uint8Array(scores.length);
    for (let row = 0; row < values.length; row++) if (scores[row] >= 0) values[row] = 1 + Math.min(254, scores[row] * 255);
    return { values, palette: RAMP, legend: [] };
  }
  const grouping = state.groupings.value.find((one) => "group:" + one.key === what);
  if (grouping)
    return {
      values: state.groupsOf(grouping.key),
      palette: grouping.colors.map((color, at) => (state.focus.value.length && !state.focus.value.includes(grouping.names[at]) ? "#3a4047" : color)),
      legend: grouping.names.map((name, at) => [name, grouping.colors[at]]),
    };
  return { values: null, palette: [], legend: [] };
});
export const RAMP = Array.from({ length: 255 }, (_, at) => {
  const [whole, part] = [Math.floor((at / 255) * 8), ((at / 255) * 8) % 1];
  const mix = [1, 3, 5].map((from) => [0, 1].map((side) => parseInt(VIRIDIS[whole + side].slice(from, from + 2), 16)))
    .map(([low, high]) => Math.round(low + (high - low) * part).toString(16).padStart(2, "0"));
  return "#" + mix.join("");
});

const shown = computed(() => state.channels.value.map((one) => {
  const auto = contrasts.value[`${state.region.value} ${one.channel}`];
  return { ...one, top: auto?.top ?? 1, low: one.low ?? auto?.low ?? 0, high: one.high ?? auto?.high ?? 1, known: !!auto };
}));
effect(() => {
  for (const { channel } of state.start.value ? state.channels.value : []) {
    const [region, key] = [state.region.value, `${state.region.value} ${channel}`];
    if (!(key in contrasts.peek()))
      api.contrast(region, channel).then((found) => (contrasts.value = { ...contrasts.peek(), [key]: found }), state.told);
  }
});
const change = (at: number, to: Partial<state.Shown> | null) =>
  (state.channels.value = state.channels.value.flatMap((one, index) => (index !== at ? one : to ? { ...one, ...to } : [])));
export const toggleChannel = (at: number) => change(at, { on: !state.channels.value[at]?.on });

let asking = 0;
effect(() => { // numbers of the cell that is looked at, once the pointer rests
  const row = state.hovered.value ?? state.selected.value;
  const name = state.markerName.value;
  void state.labels.value;
  clearTimeout(asking);
  if (row === null) numbers.value = null;
  else asking = window.setTimeout(() => api.cell(row, name).then((cell) => (numbers.value = cell), state.told), 60);
});

function Channel({ at, one }: { at: number; one: (typeof shown.value)[number] }) {
  const names = state.start.value!.channels;
  const range = (side: "low" | "high") => (
    <label>{side === "low" ? "Black" : "White"}
      <input type="range" min={0} max={one.top} step={one.top / 500} value={one[side]}
        onInput={(event) => change(at, { low: one.low, high: one.high, [side]: Number(event.currentTarget.value) })} /></label>
  );
  return (
    <span class="chip">
      <button aria-pressed={one.on} onClick={() => toggleChannel(at)} title={`On or off (${at + 1})`}>
        <i style={{ background: one.color }} />{names[one.channel]}
      </button>
      <details name="channel">
        <summary aria-label={`Settings of ${names[one.channel]}`}>▾</summary>
        <div class="pop">
          <label>Channel <select value={one.channel}
            onChange={(event) => change(at, { channel: event.currentTarget.selectedIndex, low: null, high: null })}>
            {names.map((name, index) => <option value={index}>{name}</option>)}
          </select></label>
          <label>Colour <input type="color" value={one.color} onInput={(event) => change(at, { color: event.currentTarget.value })} /></label>
          {range("low")}{range("high")}
          <span class="row"><button onClick={() => change(at, { low: null, high: null })}>Auto contrast</button>
            <button onClick={() => change(at, null)}>Remove</button></span>
        </div>
      </details>
    </span>
  );
}

function Tools() {
  const first = state.start.value!;
  const free = first.channels.findIndex((_, index) => !state.channels.value.some((one) => one.channel === index));
  const color = state.COLORS.findIndex((one) => !state.channels.value.some((shown) => shown.color === one));
  return (
    <div class="tools row" role="toolbar" aria-label="What is drawn">
      {shown.value.map((one, at) => <Channel key={at} at={at} one={one} />)}
      {state.channels.value.length < 3 && free >= 0 && (
        <button onClick={() => (state.channels.value = [...state.channels.value, state.channel(free, Math.max(color, 0))])}>+ Channel</button>
      )}
      <span class="space" />
      <Choose label="Cells" of={state.paint} disabled={state.blind.value} options={[["score", "by score"], ["call", "by call"],
        ["label", "by label"], ...state.groupings.value.map(({ key }): [string, string] => ["group:" + key, "by " + key]),
        ["none", "not coloured"]]} />
      <Choose label="as" of={state.mode} options={[["outlines", "outlines"], ["fills", "fills"]]} />
      <input type="range" aria-label="Opacity" title="Opacity" min={0} max={1} step={0.05} value={state.opacity.value}
        onInput={(event) => (state.opacity.value = Number(event.currentTarget.value))} />
    </div>
  );
}

export function Tissue() {
  const host = useRef<HTMLDivElement>(null);
  useEffect(() => {
    let made: Viewer;
    const options = {
      onHover: (row: number | null, x: number, y: number) => [(state.hovered.value = row), (pointer.value = [x, y])],
      onClick: (row: number | null) => {
        state.selectCell(row);
        if (row !== null && state.brush.value) void state.label([row], state.brush.value);
      },
      onView: (now: View) => (view.value = { ...now, region: state.region.peek() }),
      onError: state.told,
    };
    try {
      viewer.value = made = new Viewer(host.current!, options);
    } catch (error) { // no WebGL2
      return state.told(error as Error);
    }
    const stops = [
      effect(() => {
        const number = state.region.value;
        made.setRegion(number, state.start.value!.regions[number], view.peek()?.region === number ? view.peek() : null);
      }),
      effect(() => made.setChannels(shown.value.filter((one) => one.on && one.known))),
      effect(() => {
        const { values, palette } = colouring.value;
        if (values instanceof Float32Array) made.setCalls(values, state.threshold.value, palette);
        else made.setColors(values, palette);
      }),
      effect(() => made.setStyle(state.mode.value, state.opacity.value)),
      effect(() => made.setSelected(state.selected.value)),
      effect(() => {
        const [row, cells] = [state.jump.value?.row, state.cells.value];
        const px = 50 / state.start.value!.regions[state.region.peek()].um_per_px; // of 50 um
        if (row !== undefined && cells) made.goTo(cells.x[row], cells.y[row], Math.max(px, 30 * cells.radius[row]));
      }),
    ];
    return () => [stops.forEach((stop) => stop()), made.destroy()];
  }, []);
  return (
    <>
      <Tools />
      <div class="canvas" ref={host}><Legend /><Scale /><Card /></div>
    </>
  );
}

function Legend() {
  const { legend, values } = colouring.value;
  const ramp = !state.blind.value && state.paint.value === "score";
  if (!values) return null;
  return (
    <div class="legend">
      {ramp && <><div class="ramp" style={{ background: `linear-gradient(90deg, ${VIRIDIS})` }} />score of {state.markerName}, 0 to 1</>}
      {legend.map(([name, color]) => <span><i style={{ background: color }} />{name}</span>)}
    </div>
  );
}

function Scale() {
  const um = state.start.value!.regions[state.region.value].um_per_px / (view.value?.scale ?? 1); // of a screen pixel
  const tens = 10 ** Math.floor(Math.log10(160 * um));
  const length = tens * ([5, 2].find((times) => times * tens <= 160 * um) ?? 1);
  return <div class="scale">{length < 1000 ? `${+length.toPrecision(1)} µm` : `${length / 1000} mm`}<i style={{ width: `${length / um}px` }} /></div>;
}

function Card() {
  const [cell, row] = [numbers.value, state.hovered.value];
  if (!cell || cell.row !== (row ?? state.selected.value)) return null;
  const [x, y] = pointer.value;
  const at = row === null ? { left: "10px", top: "10px" } : { left: `min(${x + 14}px, 100% - 220px)`, top: `min(${y + 14}px, 100% - 120px)` };
  const fixed = (value: number | null) => value?.toFixed(3) ?? "none";
  const number = (value: number | null) => value?.toLocaleString("en", { maximumSignificantDigits: 3 }) ?? "none";
  return (
    <div class="card" style={at}>
      <b>Cell {cell.id}</b>
      {!state.blind.value && <div>{state.markerName} score {fixed(cell.score)}{cell.shown !== cell.score && `, learned ${fixed(cell.shown)}`}</div>}
      <div>Intensity {number(cell.intensity)} · area {number(cell.area)} µm²</div>
      <div>Label: {state.STATES[state.labels.value?.[cell.row] ?? 0]}</div>
      {!state.blind.value && Object.entries(cell.groups).map(([key, name]) => name && <div>{key}: {name}</div>)}
    </div>
  );
}
