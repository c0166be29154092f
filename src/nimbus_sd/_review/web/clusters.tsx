// The tab of clusters: mean scores and their tree, edits by hand, typical and doubtful cells.
import { computed, effect, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import * as api from "./api";
import { Choose, Crop } from "./charts";
import * as state from "./state";
import { RAMP } from "./tissue";

const key = state.kept("clusters", "");
const picked = signal<ReadonlySet<string>>(new Set()); // clusters
const name = signal(""); // of what an edit makes
const pointed = signal<[number, number] | null>(null); // row and column of the heat map under the pointer
const examples = signal<{ typical: number[]; doubtful: number[] } | null>(null);
const ROW = 19; // height of a cluster, as in style.css
const HEAD = 80; // room for the names of markers

const shown = computed(() => (state.clusters.value?.key === key.value ? state.clusters.value : null));
/** Metaclusters with a cluster that is picked. */
const groups = computed(() => [...new Set([...picked.value].map((one) => shown.value?.metacluster[shown.value.clusters.indexOf(one)] ?? ""))].filter(Boolean));

effect(() => { // the clusters of the column that is chosen; those picked are seen on the tissue
  if (state.tab.value !== "Clusters" || !state.start.value) return void (state.focus.value = []);
  const keys = state.groupings.value.map((one) => one.key);
  if (!keys.includes(key.value)) key.value = keys.find((one) => one.startsWith("flowsom")) ?? keys[0] ?? "";
  if (!key.value) return;
  state.paint.value = "group:" + key.value;
  if (!shown.value) api.clusters(key.value).then((found) => (state.clusters.value = found), state.told);
});
effect(() => void (state.focus.value = groups.value));
effect(() => {
  const [which, of] = [groups.value, key.value];
  [examples.value, name.value] = [null, which.length === 1 && !/^\d+$/.test(which[0]) ? which[0] : ""];
  if (which.length === 1) api.examples(of, which[0]).then((found) => groups.peek()[0] === which[0] && (examples.value = found), state.told);
});
const busy = signal(false); // clusters or types are being made

function pick(clusters: string[], add: boolean) {
  const all = clusters.every((one) => picked.value.has(one));
  const rest = [...picked.value].filter((one) => add && !clusters.includes(one));
  picked.value = new Set(all && add ? rest : all && picked.value.size === clusters.length ? [] : [...rest, ...clusters]);
}
const edit = (step: api.Do) => state.act(step).then((kept) => kept && (picked.value = new Set()));

/** The tree: a branch is a path, and the clusters under it are picked by a click. */
function Tree({ of }: { of: api.Clusters }) {
  const n = of.clusters.length;
  const top = Math.max(...of.tree.map((branch) => branch[2]), 1e-9);
  const places = Array.from({ length: n }, (_, at) => ({ x: 44, y: (of.order.indexOf(at) + 0.5) * ROW, under: [of.clusters[at]] }));
  const paths = of.tree.map(([one, other, height]) => {
    const [a, b] = [places[one], places[other]];
    const x = 44 - (40 * height) / top;
    const made = { x, y: (a.y + b.y) / 2, under: [...a.under, ...b.under] };
    places.push(made);
    return { path: `M${a.x} ${a.y}H${x}V${b.y}H${b.x}`, under: made.under };
  });
  return (
    <svg class="tree" width={44} height={n * ROW} aria-hidden="true">
      {paths.map(({ path, under }) => (
        <path d={path} class={under.every((one) => picked.value.has(one)) ? "on" : ""}
          onClick={(event) => pick(under, event.shiftKey)}><title>{under.length} clusters</title></path>
      ))}
    </svg>
  );
}

function HeatMap({ of }: { of: api.Clusters }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const wide = Math.max(10, Math.min(24, Math.floor(230 / of.markers.length)));
  useEffect(() => {
    const context = canvas.current!.getContext("2d")!;
    of.order.forEach((cluster, row) => of.markers.forEach((_, col) => {
      context.fillStyle = RAMP[Math.min(254, Math.max(0, Math.floor(of.means[cluster][col] * 255)))];
      context.fillRect(col, row, 1, 1);
    }));
  }, [of]);
  const point = (event: PointerEvent) => {
    const box = canvas.current!.getBoundingClientRect();
    pointed.value = [Math.floor((event.clientY - box.top) / ROW), Math.floor((event.clientX - box.left) / wide)];
  };
  return (
    <div class="scroll">
      <div class="names" style={{ height: `${HEAD}px`, width: `${of.markers.length * wide + 30}px` }}>
        {of.markers.map((one, col) => (
          <span class={pointed.value?.[1] === col ? "on" : ""} style={{ left: `${(col + 0.5) * wide}px` }}>{one}</span>
        ))}
      </div>
      <canvas ref={canvas} width={of.markers.length} height={of.clusters.length} onPointerMove={point} onPointerLeave={() => (pointed.value = null)}
        onClick={(event) => pointed.value && pick([of.clusters[of.order[pointed.value[0]]]], event.shiftKey)}
        style={{ width: `${of.markers.length * wide}px`, height: `${of.clusters.length * ROW}px` }}
        aria-label="Mean scores of clusters (rows) and markers (columns)" />
    </div>
  );
}

/** Shows the three markers in which a metacluster exceeds the others most. */
function showMarkers(of: api.Clusters, group: string) {
  const inside = of.clusters.map((_, at) => of.metacluster[at] === group);
  const mean = (col: number, side: boolean) => {
    const rows = of.means.filter((_, at) => inside[at] === side);
    return rows.reduce((sum, row) => sum + row[col], 0) / (rows.length || 1);
  };
  const above = of.markers.map((marker, col): [number | null, number] =>
    [state.markers.value.find((one) => one.name === marker)?.channel ?? null, mean(col, true) - mean(col, false)]);
  state.channels.value = above.filter((one): one is [number, number] => one[0] !== null).sort((a, b) => b[1] - a[1]).slice(0, 3)
    .map(([channel], at) => state.channel(channel, at));
}

function Edit({ of }: { of: api.Clusters }) {
  const [which, text] = [groups.value, name.value.trim()];
  const one = which.length === 1 ? which[0] : null;
  const members = of.clusters.filter((_, at) => of.metacluster[at] === one);
  const part = [...picked.value].filter((cluster) => members.includes(cluster));
  const able = state.writable.value;
  const color = one ? of.colors[of.names.indexOf(one)] : "";
  if (!which.length) return <p class="hint">Click clusters, or a branch of the tree; with Shift several. Then merge, split, rename or colour them.</p>;
  return (
    <form class="edit" onSubmit={(event) => event.preventDefault()}>
      <b>{which.join(", ")}</b>
      <input aria-label="Name" placeholder={one ? "New name" : "Name of what they become"} value={name.value}
        onInput={(event) => (name.value = event.currentTarget.value)} />
      <span class="row">
        {!one && <button class="primary" disabled={!able || !text} onClick={() => edit({ do: "merge", key: of.key, names: which, into: text })}>Merge {which.length}</button>}
        {one && <button class="primary" disabled={!able || !text || text === one} onClick={() => edit({ do: "rename", key: of.key, name: one, to: text })}>Rename</button>}
        {one && part.length < members.length && (
          <button disabled={!able || !text} onClick={() => edit({ do: "split", key: of.key, name: one, clusters: part, into: text })}>Split off {part.length}</button>
        )}
        {one && <button onClick={() => showMarkers(of, one)}>Show its markers</button>}
        {one && <input type="color" aria-label="Colour" value={color} disabled={!able}
          onChange={(event) => edit({ do: "recolor", key: of.key, name: one, color: event.currentTarget.value })} />}
      </span>
    </form>
  );
}

export function Clusters() {
  const of = shown.value;
  const make = (step: api.Do, made: string) => {
    busy.value = true;
    void state.act(step).then((kept) => [(busy.value = false), kept && (key.value = made)]);
  };
  const total = state.start.value!.n_cells;
  return (
    <>
      {state.groupings.value.length > 0 && <Choose label="Clusters" of={key} options={state.groupings.value.map((one) => [one.key, one.key])} />}
      {of && (
        <>
          <div class="heat">
            <div style={{ paddingTop: `${HEAD}px` }}><Tree of={of} /></div>
            <div style={{ paddingTop: `${HEAD}px` }} role="listbox" aria-multiselectable="true" aria-label="Clusters">
              {of.order.map((at) => {
                const [cluster, group] = [of.clusters[at], of.metacluster[at]];
                return (
                  <button role="option" aria-selected={picked.value.has(cluster)} title={`Cluster ${cluster}, ${of.sizes[at].toLocaleString("en")} cells`}
                    onClick={(event) => pick([cluster], event.shiftKey)}>
                    <i style={{ background: of.colors[of.names.indexOf(group)] }} />
                    <span>{group === cluster ? cluster : `${group} (${cluster})`}</span>
                    <s style={{ width: `${(34 * of.sizes[at]) / Math.max(...of.sizes)}px` }} />
                  </button>
                );
              })}
            </div>
            <HeatMap of={of} />
          </div>
          <p class="hint" aria-live="polite">
            {pointed.value && of.order[pointed.value[0]] !== undefined && of.markers[pointed.value[1]]
              ? `${of.metacluster[of.order[pointed.value[0]]]}, ${of.markers[pointed.value[1]]}: mean score ${of.means[of.order[pointed.value[0]]][pointed.value[1]].toFixed(2)}`
              : `${of.clusters.length} clusters, ${of.names.length} groups; ${Math.round(100 * of.share_named)} % of ${total.toLocaleString("en")} cells have a name`}
          </p>
          <Edit of={of} />
          {examples.value && (["typical", "doubtful"] as const).map((kind) => examples.value![kind].length > 0 && (
            <><h3>{kind === "typical" ? "Typical cells" : "Doubtful cells, almost as close to another group"}</h3>
              <div class="crops six">{examples.value![kind].map((row) => <Crop key={row} row={row} />)}</div></>
          ))}
          {of.history.length > 0 && <details><summary>History: {of.history.length} steps</summary><ol>{of.history.map((step) => <li>{step}</li>)}</ol></details>}
        </>
      )}
      <p class="row">
        <button disabled={!state.writable.value || busy.value} onClick={() => make({ do: "cluster" }, "flowsom_nimbus")}>Cluster the cells</button>
        <button disabled={!state.writable.value || busy.value} onClick={() => make({ do: "types" }, "cell_type_nimbus")}>Name types</button>
      </p>
      <p class="hint">By all scores, with the markers that tell cell types apart. What has these names already is replaced.</p>
    </>
  );
}
