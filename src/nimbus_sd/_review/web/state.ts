// What the page knows, as signals, and all that can be done. Components read signals and call these functions.
import { batch, computed, effect, signal } from "@preact/signals";
import * as api from "./api";

export const STATES = ["none", "negative", "likely negative", "undetermined", "likely positive", "positive"];
export const LABELS = ["#56b4e9", "#b7def6", "#ffffff", "#f6d795", "#e69f00"]; // colours of states 1 to 5
export const COLORS = ["#ffffff", "#3f7fff", "#ff4fd8"]; // of the marker, the nuclei, and one more
export interface Shown { channel: number; color: string; on: boolean; low: number | null; high: number | null } // null = auto

/** A signal that a reload of the page finds again. */
export function kept<T>(name: string, first: T) {
  const value = signal<T>(JSON.parse(sessionStorage.getItem(name) ?? "null") ?? first);
  effect(() => sessionStorage.setItem(name, JSON.stringify(value.value)));
  return value;
}

// What the server told.
export const start = signal<api.Start | null>(null);
export const cells = signal<Awaited<ReturnType<typeof api.cells>> | null>(null);
export const markers = signal<api.Marker[]>([]);
export const groupings = signal<api.Grouping[]>([]);
export const clusters = signal<api.Clusters | null>(null); // of the last edit or look at clusters
export const undoStep = signal<string | null>(null);
export const unsaved = signal(0);
export const page = signal<string | null>(null); // what lets this page write; null = another page writes
export const annotator = signal("");
export const lost = signal(false); // the server does not answer
export const notices = signal<{ text: string; bad: boolean }[]>([]);
const cache = signal<Record<string, Values>>({}); // what came of /api/scores, labels, groups

// What is shown.
export const tab = kept("tab", "Scores");
export const region = kept("region", 0);
export const markerName = kept("marker", "");
export const layer = kept("layer", "");
export const labelLayer = signal("gold_training"); // "gold:NAME" while regions are judged: scores are hidden then
export const channels = kept<Shown[]>("channels", []);
export const paint = kept("paint", "score"); // "score", "call", "label", "none", or "group:KEY"
export const mode = kept<"outlines" | "fills">("mode", "outlines");
export const opacity = kept("opacity", 0.6);
export const draft = signal<number | null>(null); // the threshold while it is dragged
export const selected = signal<number | null>(null); // row
export const focus = signal<string[]>([]); // groups whose cells keep their colour; none = all
export const hovered = signal<number | null>(null);
export const brush = signal(0); // the state that a click on a cell gives; 0 = a click selects
export const reason = signal(""); // why the selected cell was proposed; "" = it was chosen by hand
export const advance = kept("advance", true); // after the label of a proposed cell the next comes by itself
export const jump = signal<{ row: number } | null>(null); // the viewer moves there

const nuclei = computed(() => start.value?.channels.findIndex((name) => /dapi|hoechst|dna|hh3|histone|nucle/i.test(name)) ?? -1);
export const blind = computed(() => labelLayer.value !== "gold_training");
export const writable = computed(() => page.value !== null && !lost.value);
export const marker = computed(() => markers.value.find((one) => one.name === markerName.value) ?? null);
export const threshold = computed(() => draft.value ?? marker.value?.threshold ?? 0.5);

type Values = Float32Array | Uint8Array | Uint16Array;
const asked = new Map<string, Promise<Values>>();
/** What the server has about every cell, or null until it came. Asks once. */
function perCell<T extends Values>(key: string, ask: () => Promise<T>): T | null {
  const have = cache.value[key];
  if (have === undefined && !asked.has(key)) {
    const answer = ask();
    asked.set(key, answer);
    answer.then((values) => asked.get(key) === answer && (cache.value = { ...cache.peek(), [key]: values }), told)
      .finally(() => asked.get(key) === answer && asked.delete(key));
  }
  return (have as T) ?? null;
}
function forget(prefix: string) {
  for (const key of asked.keys()) if (key.startsWith(prefix)) asked.delete(key);
  cache.value = Object.fromEntries(Object.entries(cache.peek()).filter(([key]) => !key.startsWith(prefix)));
}
export const scoresOf = (layer: string, marker: string) => perCell(`scores ${layer} ${marker}`, () => api.scores(layer, marker));
export const labelsOf = (layer: string, marker: string) => perCell(`labels ${layer} ${marker}`, () => api.labels(layer, marker));
export const groupsOf = (key: string) => perCell(`groups ${key}`, () => api.groups(key));

export const labels = computed(() => (markerName.value ? labelsOf(labelLayer.value, markerName.value) : null));
export const judged = computed(() => {
  const given = labels.value?.filter(Boolean) ?? [];
  return { given: given.length, positive: given.filter((one) => one > 3).length };
});
/** Scores of the marker as shown: moved by the line that was learned from its labels. */
export const scores = computed(() => {
  const raw = markerName.value && layer.value && !blind.value ? scoresOf(layer.value, markerName.value) : null;
  const learned = layer.value === start.value?.layer ? marker.value : null;
  return raw && line(raw, learned?.slope ?? 1, learned?.offset ?? 0);
});
export function line(raw: Float32Array, slope: number, offset: number): Float32Array {
  if (slope === 1 && offset === 0) return raw;
  return raw.map((score) => {
    const odds = Math.min(Math.max(score, 1e-4), 1 - 1e-4);
    return 1 / (1 + Math.exp(-slope * Math.log(odds / (1 - odds)) - offset));
  });
}

// What can be done.
export function notify(text: string, bad = false) {
  if (!notices.peek().some((one) => one.text === text)) notices.value = [...notices.peek(), { text, bad }];
}
export function told(error: Error) {
  if (error instanceof api.Failure && error.status === 0) lost.value = true;
  else notify(error.message, true);
}

/** Does what may fail: what the server refuses is told. */
const attempt = (work: () => Promise<unknown>): Promise<void> => work().then(() => undefined, told);

/** Whether no other tab of this browser has this review: then a page that was left or closed may go on unasked. */
const alone = new Promise<boolean>((tell) =>
  navigator.locks.request("page", { ifAvailable: true }, (lock) => (tell(lock !== null), lock && new Promise(() => {}))));

export const open = (take_over = false) => attempt(async () => {
  const first = await api.start();
  const own = (await alone) ? localStorage.getItem("page") : page.peek();
  if (!take_over && first.page !== null && first.page === own) page.value = own;
  else page.value = await api.takePage(take_over).then((answer) => answer.page, (error: api.Failure) => {
    if (error.status !== 409) throw error;
    return null;
  });
  if (page.value) localStorage.setItem("page", page.value);
  cells.value ??= await api.cells(first.n_cells);
  batch(() => {
    forget("");
    [lost.value, start.value, markers.value, groupings.value] = [false, first, first.markers, first.groupings];
    [undoStep.value, unsaved.value, annotator.value] = [first.undo, first.unsaved, first.annotator];
    first.notices.forEach((text) => notify(text));
    if (!first.layers.includes(layer.peek())) layer.value = first.layer;
    if (!first.regions[region.peek()]) region.value = 0;
    if (!channels.peek().length && nuclei.value >= 0) channels.value = [channel(nuclei.value, 0)];
    if (!marker.value && first.markers.length) selectMarker(first.markers[0].name);
  });
});

export function selectMarker(name: string) {
  void setThreshold();
  batch(() => {
    [markerName.value, draft.value, reason.value] = [name, null, ""];
    const own = marker.value?.channel ?? null;
    if (own === null) return;
    const rest = channels.peek().flatMap((one, at) => // what is shown beside the marker, nuclei above all, stays
      one.channel === own ? [] : at ? [one] : one.channel === nuclei.value ? [channel(nuclei.value, 1)] : []);
    channels.value = [channel(own, 0), ...rest].slice(0, 3);
  });
}
export const channel = (index: number, color: number): Shown => ({ channel: index, color: COLORS[color], on: true, low: null, high: null });

/** One step: kept in the log when this resolves. What came of it is shown; false = it was not kept, which is told. */
export async function act(step: api.Do): Promise<boolean> {
  const kept = await finish(() => api.act(page.peek() ?? "", step));
  if (kept) steps.push(step.do === "label" && step.rows.length === 1 ? step.rows[0] : -1);
  return kept;
}
const steps: number[] = []; // of this page, the row that each step was about, so that undo goes back to it
let last = Promise.resolve(true); // steps reach the server in the order in which they were made
function finish(step: () => Promise<api.Done>): Promise<boolean> {
  return (last = last.then(() => finished(step)));
}
async function finished(step: () => Promise<api.Done>): Promise<boolean> {
  try {
    const done = await step();
    batch(() => {
      [undoStep.value, unsaved.value] = [done.undo, done.unsaved];
      const moved = done.marker;
      if (moved) markers.value = markers.peek().map((one) => (one.name === moved.name ? moved : one));
      if (done.clusters) clusters.value = done.clusters;
      if (done.groupings) [groupings.value] = [done.groupings, forget("groups ")];
      done.notices?.forEach((text) => notify(text));
    });
    return true;
  } catch (error) {
    if ((error as api.Failure).status === 409) page.value = null;
    told(error as Error);
    return false;
  }
}

/** Gives cells a state, at once on the page; taken back there if the server does not keep it. */
export async function label(rows: number[], state: number) {
  const [name, into] = [markerName.peek(), labelLayer.peek()];
  const key = `labels ${into} ${name}`;
  const before = cache.peek()[key] as Uint8Array | undefined;
  if (!writable.peek()) return notify(`Not kept: ${lost.peek() ? "nimbus-sd does not answer" : "this page only looks"}`, true);
  if (!before) return notify(`Not kept: labels of ${name} are still being read`, true);
  const put = (states: (row: number) => number) => {
    const changed = (cache.peek()[key] as Uint8Array).slice();
    rows.forEach((row) => (changed[row] = states(row)));
    cache.value = { ...cache.peek(), [key]: changed };
  };
  put(() => state);
  const goes = advance.peek() && state > 0 && reason.peek() !== "" && selected.peek() === rows[0];
  if (goes) selected.value = null; // so that a key pressed too early does not meet this cell again
  const kept = await act({ do: "label", marker: name, layer: into, rows, state });
  if (kept && goes) return next();
  if (kept) return;
  if (cache.peek()[key]) put((row) => before[row]);
  if (goes) selected.value = rows[0];
  notify(`Not kept: ${STATES[state]} for ${rows.length === 1 ? "the last cell" : rows.length + " cells"} (${name})`, true);
}

/** Ends the dragging of a threshold. */
export async function setThreshold() {
  const [name, value] = [markerName.peek(), draft.peek()];
  if (value === null || !writable.peek()) return;
  await act({ do: "threshold", marker: name, value });
  if (draft.peek() === value) draft.value = null;
}
export const dragThreshold = (value: number) => (draft.value = Math.round(Math.min(Math.max(value, 0), 1) * 1000) / 1000);

export async function undo() {
  if (!writable.peek() || !undoStep.peek()) return;
  if (!(await finish(() => api.undo(page.peek() ?? "")))) return;
  batch(() => [forget("labels "), forget("groups ")]);
  const row = steps.pop();
  if (row !== undefined && row >= 0) selectCell(row, true);
}

export const saving = signal(false);
export const save = () => attempt(async () => {
  if (!writable.peek() || saving.peek()) return;
  saving.value = true;
  const { saved, unsaved: left } = await api.save(page.peek() ?? "").finally(() => (saving.value = false));
  unsaved.value = left;
  notify("Saved:\n" + saved.join("\n"));
});

const proposed: Record<string, number[]> = {}; // by marker, the rows that were shown already
export const next = () => attempt(async () => {
  if (blind.peek()) return nextUnjudged();
  const after = (proposed[markerName.peek()] ??= []);
  const { row, reason: why } = await api.next(markerName.peek(), layer.peek(), after.slice(-200));
  if (row === null) return notify(why);
  after.push(row);
  batch(() => [selectCell(row, true), (reason.value = why)]);
});

/** While regions are judged: the nearest cell of the region that has no state yet. */
function nextUnjudged() {
  const [all, states, here] = [cells.peek(), labels.peek(), region.peek()];
  if (!all || !states) return;
  const from = selected.peek() ?? all.region.indexOf(here);
  let [best, least] = [-1, Infinity];
  for (let row = 0; row < states.length; row++) {
    if (states[row] || all.region[row] !== here) continue;
    const off = Math.hypot(all.x[row] - all.x[from], all.y[row] - all.y[from]);
    if (off < least) [best, least] = [row, off];
  }
  if (best < 0) return notify(`Every cell of this region is judged for ${markerName.peek()}`);
  batch(() => (selectCell(best, true), (reason.value = "Not judged yet")));
}

export function selectCell(row: number | null, go = false) {
  batch(() => {
    [selected.value, reason.value] = [row, ""];
    const at = row === null ? 65535 : cells.peek()?.region[row] ?? 65535;
    if (!go || row === null || at === 65535) return;
    region.value = at;
    jump.value = { row };
  });
}
