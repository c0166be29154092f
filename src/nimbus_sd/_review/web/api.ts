// Typed calls of the server, which alone speaks to the store. The token is in the page's address.

export interface Region {
  name: string; image: string; height: number; width: number; um_per_px: number; cells: number; levels: number;
  evaluation: boolean; trained: boolean; home: number[] | null;
}
export interface Marker {
  name: string; channel: number | null; share: number | null; doubt: number | null; flag: string; histogram: number[];
  threshold: number; slope: number; offset: number; labels: number; positives: number; learned: string;
}
export interface Grouping { key: string; names: string[]; colors: string[]; editable: boolean }
export interface Start {
  store: string; version: string; readonly: string | null; annotator: string; notices: string[]; n_cells: number;
  layers: string[]; layer: string; channels: string[]; tile: number; regions: Region[]; markers: Marker[];
  groupings: Grouping[]; page: string | null; undo: string | null; unsaved: number;
}
export interface Cell {
  row: number; id: number | string; region: number; x: number; y: number; area: number | null; score: number | null;
  shown: number | null; intensity: number | null; label: number; groups: Record<string, string>;
}
export interface Clusters {
  key: string; clusters: string[]; metacluster: string[]; sizes: number[]; markers: string[]; means: number[][];
  order: number[]; tree: [number, number, number, number][]; names: string[]; colors: string[]; history: string[];
  share_named: number;
}
export interface Judging {
  regions: { name: string; evaluation: boolean; cells: number; judged: Record<string, Record<string, number>> }[];
  free: string[]; agreement: { marker: string; cells: number; agree: number; kappa: number | null }[];
  disputed: { row: number; marker: string; states: Record<string, number> }[]; refused: string | null;
}
export interface Tuning {
  state: "none" | "running" | "done" | "failed" | "refused"; message: string; progress: number; epoch: number;
  report: { marker: string; truth: string; cells: number; f1_before: number; f1_after: number }[] | null;
  layer: string | null;
}
export type Do =
  | { do: "label"; marker: string; layer: string; rows: number[]; state: number }
  | { do: "threshold"; marker: string; value: number }
  | { do: "merge"; key: string; names: string[]; into: string }
  | { do: "split"; key: string; name: string; clusters: string[]; into: string }
  | { do: "rename"; key: string; name: string; to: string }
  | { do: "recolor"; key: string; name: string; color: string }
  | { do: "cluster" } | { do: "types" } | { do: "draw"; n: number } | { do: "annotator"; name: string }
  | { do: "keep" | "drop"; layer: string };
export interface Done {
  undo: string | null; unsaved: number; marker?: Marker | null; groupings?: Grouping[]; clusters?: Clusters; notices?: string[];
}

/** What the server refused, or (status 0) that it does not answer. */
export class Failure extends Error {
  constructor(message: string, readonly status: number) { super(message); }
}

const token = new URLSearchParams(location.search).get("token") ?? "";
type Query = Record<string, string | number>;

/** GET, or POST where there is a body. The viewer reads its tiles through this, too. */
export async function request(path: string, query: Query = {}, body?: object, signal?: AbortSignal): Promise<Response> {
  const address = path + "?" + new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)]));
  const headers = { "X-Token": token, ...(body && { "Content-Type": "application/json" }) };
  const answer = await fetch(address, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal })
    .catch((error: Error) => {
      throw error.name === "AbortError" ? error : new Failure("nimbus-sd does not answer", 0);
    });
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({ error: `${path}: ${answer.status} ${answer.statusText}` }));
  throw new Failure(error, answer.status);
}
const json = async <T>(path: string, query?: Query, body?: object): Promise<T> => (await request(path, query, body)).json();
const bytes = async (path: string, query?: Query) => (await request(path, query)).arrayBuffer();

export const start = () => json<Start>("/api/start");
export const cell = (row: number, marker: string) => json<Cell>("/api/cell", { row, marker });
export const contrast = (region: number, channel: number) =>
  json<{ top: number; low: number; high: number }>("/api/contrast", { region, channel });
export const next = (marker: string, layer: string, after: number[]) =>
  json<{ row: number | null; reason: string }>("/api/next", { marker, layer, after: after.join(",") });
export const clusters = (key: string) => json<Clusters>("/api/clusters", { key });
export const examples = (key: string, name: string) =>
  json<{ typical: number[]; doubtful: number[] }>("/api/examples", { key, name });
export const judging = () => json<Judging>("/api/judging");
export const tuning = () => json<Tuning>("/api/tuning");

export const scores = async (layer: string, marker: string) => new Float32Array(await bytes("/api/scores", { layer, marker }));
export const labels = async (layer: string, marker: string) => new Uint8Array(await bytes("/api/labels", { layer, marker }));
export const groups = async (key: string) => new Uint16Array(await bytes("/api/groups", { key }));
export async function cells(n: number) {
  const all = await bytes("/api/cells"); // a radius starts where 10 bytes a cell end, which no Float32Array may
  return { x: new Float32Array(all, 0, n), y: new Float32Array(all, 4 * n, n), region: new Uint16Array(all, 8 * n, n),
    radius: new Float32Array(all.slice(10 * n)) };
}
export const crop = async (row: number, channels: number[], um = 40) =>
  createImageBitmap(await (await request("/api/crop", { row, channels: channels.join(","), um })).blob());

export const takePage = (take_over: boolean) => json<{ page: string }>("/api/page", {}, { take_over });
export const act = (page: string, step: Do) => json<Done>("/api/do", {}, { page, do: step });
export const undo = (page: string) => json<Done>("/api/undo", {}, { page });
export const save = (page: string) => json<{ saved: string[]; unsaved: number }>("/api/save", {}, { page });
export const tune = (page: string, action: "start" | "stop") => json<Tuning>("/api/tuning", {}, { page, action });
