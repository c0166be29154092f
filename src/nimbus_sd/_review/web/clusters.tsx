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
const renaming = signal(""); // the cluster whose group gets another name, in its place
const whole = state.kept("whole", false); // the panel takes the room of the markers, too
const at = signal(0); // the row that the keyboard is on
const busy = signal(false); // clusters or types are being made
const pointed = signal<[number, number] | null>(null); // row and column of the heat map under the pointer
const examples = signal<Awaited<ReturnType<typeof api.examples>> | null>(null);
const HEAD = 76; // room for the names of markers
// Told apart by most eyes, on dark tissue, too: Okabe and Ito's, Tol's light ones, and greys.
const COLORS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#99ddff", "#44bb99", "#bbcc33", "#eedd88", "#ee8866",
  "#ffaabb", "#aa4499", "#dddddd", "#808080"];

const shown = computed(() => (state.clusters.value?.key === key.value ? state.clusters.value : null));
const height = computed(() => ((shown.value?.clusters.length ?? 0) > 24 ? 14 : 19)); // of a cluster
/** Metaclusters with a cluster that is picked. */
const groups = computed(() => [...new Set([...picked.value].map((one) => shown.value?.metacluster[shown.value.clusters.indexOf(one)] ?? ""))].filter(Boolean));

effect(() => { // the clusters of the column that is chosen; those picked are seen on the tissue
  if (state.tab.value !== "Clusters" || !state.start.value) return void (state.focus.value = []);
  const keys = state.groupings.value.map((one) => one.key);
  if (!keys.includes(key.value)) key.value = keys.find((one) => one.startsWith("flowsom")) ?? keys[0] ?? "";
  if (!key.value) return;
  if (!state.paint.peek().startsWith("group:")) state.mode.value = "fills";
  state.paint.value = "group:" + key.value;
  if (!shown.value) api.clusters(key.value).then((found) => (state.clusters.value = found), state.told);
});
effect(() => void [key.value, (picked.value = new Set())]);
effect(() => void (state.focus.value = groups.value));
effect(() => void document.body.classList.toggle("whole", whole.value && state.tab.value === "Clusters"));
const subject = computed(() => groups.value.join(" + ") + shown.value?.metacluster); // recolouring leaves it as it is
effect(() => {
  void subject.value;
  const [which, of] = [groups.peek(), key.value];
  [examples.value, name.value] = [null, (which.length > 1 && which.find((one) => !/^\d+$/.test(one))) || ""];
  const now = () => groups.peek().length === 1 && groups.peek()[0] === which[0]; // what came late is of no use
  if (which.length === 1) api.examples(of, which[0]).then((found) => now() && (examples.value = found), (error) => now() && state.told(error));
});
function pick(clusters: string[], add: boolean) {
  const all = clusters.every((one) => picked.value.has(one));
  const rest = [...picked.value].filter((one) => add && !clusters.includes(one));
  picked.value = new Set(all && add ? rest : [...rest, ...clusters]);
}
const back = () => setTimeout(() => document.querySelector<HTMLElement>(".heat [tabindex='0']")?.focus()); // the keys go on in the list

/** Branches of the tree, the lowest first: their lines, and the clusters under them. */
const branches = computed(() => {
  const of = shown.value;
  if (!of) return [];
  const top = Math.max(...of.tree.map((branch) => branch[2]), 1e-9);
  const places = of.clusters.map((cluster, at) => ({ x: 44, y: (of.order.indexOf(at) + 0.5) * height.value, under: [cluster] }));
  return of.tree.map(([one, other, far]) => {
    const [a, b] = [places[one], places[other]];
    const x = 44 - (40 * far) / top;
    places.push({ x, y: (a.y + b.y) / 2, under: [...a.under, ...b.under] });
    return { path: `M${a.x} ${a.y}H${x}V${b.y}H${b.x}`, under: places.at(-1)!.under };
  });
});
const Tree = () => (
  <svg class="tree" width={44} height={shown.value!.clusters.length * height.value} aria-hidden="true">
    {[...branches.value].reverse().map(({ path, under }) => ( // smaller ones lie over larger ones
      <g class={under.every((one) => picked.value.has(one)) ? "on" : ""} onClick={(event) => pick(under, event.shiftKey)}>
        <title>Select these {under.length} clusters</title><path d={path} /></g>
    ))}
  </svg>
);

/** Keys of the list: up and down (with Shift several), left for the next larger branch, right back to one, F2, Enter. */
function press(event: KeyboardEvent, of: api.Clusters) {
  const rows = of.order.map((cluster) => of.clusters[cluster]);
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const here = rows[at.value];
  if (by) {
    at.value = Math.min(Math.max(at.value + by, 0), rows.length - 1);
    picked.value = new Set([...(event.shiftKey ? picked.value : []), rows[at.value]]);
    (event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>("[role=option]")[at.value]?.focus();
  } else if (event.key === "ArrowLeft") {
    const within = new Set([...picked.value, here]);
    const larger = branches.value.find(({ under }) => under.length > picked.value.size && [...within].every((one) => under.includes(one)));
    if (larger) picked.value = new Set(larger.under);
  } else if (event.key === "ArrowRight") picked.value = new Set([here]);
  else if (event.key === "F2" && state.writable.value) renaming.value = here;
  else if (event.key === "Enter") document.querySelector<HTMLElement>(".edit input:not([type=color])")?.focus();
  else if (event.key === "Escape") picked.value = new Set();
  else return;
  [event.preventDefault(), event.stopPropagation()];
}

function HeatMap({ of }: { of: api.Clusters }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const wide = Math.max(10, Math.min(24, Math.floor((whole.value ? 0.66 * innerWidth - 224 : 216) / of.markers.length)));
  // Markers in the order of the clusters that have most of them, so that the bright fields lie along a diagonal.
  const mean = of.markers.map((_, col) => of.means.reduce((sum, row) => sum + row[col], 0) / of.means.length);
  const peak = of.markers.map((_, col) => {
    const above = of.order.map((cluster) => Math.max(0, of.means[cluster][col] - mean[col]));
    return above.reduce((sum, more, row) => sum + more * row, 0) / (above.reduce((sum, more) => sum + more, 0) || 1);
  });
  const columns = of.markers.map((_, col) => col).sort((a, b) => peak[a] - peak[b]);
  useEffect(() => {
    const context = canvas.current!.getContext("2d")!;
    of.order.forEach((cluster, row) => columns.forEach((col, x) => {
      context.fillStyle = RAMP[Math.min(254, Math.max(0, Math.floor(of.means[cluster][col] * 255)))];
      context.fillRect(x, row, 1, 1);
    }));
  }, [of]);
  const point = (event: PointerEvent) => {
    const box = canvas.current!.getBoundingClientRect();
    const [row, x] = [Math.floor((event.clientY - box.top) / height.value), Math.floor((event.clientX - box.left) / wide)];
    pointed.value = row in of.order && x in columns ? [row, columns[x]] : null;
  };
  return (
    <div class="scroll">
      <div class="names" style={{ height: `${HEAD}px`, width: `${of.markers.length * wide}px` }}>
        {columns.map((col, x) => (
          <span class={pointed.value?.[1] === col ? "on" : ""} style={{ left: `${x * wide}px`, width: `${wide}px` }}>{of.markers[col]}</span>
        ))}
      </div>
      <canvas ref={canvas} width={of.markers.length} height={of.clusters.length} onPointerMove={point} onPointerLeave={() => (pointed.value = null)}
        onClick={(event) => pointed.value && pick([of.clusters[of.order[pointed.value[0]]]], event.shiftKey)}
        style={{ width: `${of.markers.length * wide}px`, height: `${of.clusters.length * height.value}px` }}
        aria-label="Mean scores of clusters (rows) and markers (columns)" />
    </div>
  );
}

/** The three markers, as channels, in which a group exceeds the others most. */
function strongest(of: api.Clusters, group: string): state.Shown[] {
  const mean = (col: number, side: boolean) => {
    const rows = of.means.filter((_, cluster) => (of.metacluster[cluster] === group) === side);
    return rows.reduce((sum, row) => sum + row[col], 0) / (rows.length || 1);
  };
  return of.markers.map((marker, col) => ({ channel: state.start.value!.channels.indexOf(marker), above: mean(col, true) - mean(col, false) }))
    .filter((one) => one.channel >= 0).sort((a, b) => b.above - a.above).slice(0, 3).map((one, place) => ({ ...state.channel(one.channel, place), color: RGB[place] }));
}
const RGB = ["#ff5a4d", "#4dd96a", "#5a8cff"];

function Edit({ of }: { of: api.Clusters }) {
  const [which, text, able] = [groups.value, name.value.trim(), state.writable.value];
  const one = which.length === 1 ? which[0] : null;
  const members = of.clusters.filter((_, cluster) => which.includes(of.metacluster[cluster]));
  const part = members.filter((cluster) => picked.value.has(cluster));
  const color = of.colors[of.names.indexOf(one ?? "")];
  const recolor = (to: string) => state.act({ do: "recolor", key: of.key, name: one!, color: to });
  const splits = one !== null && part.length < members.length;
  if (!which.length) return <p class="hint">Click clusters, or a branch of the tree; with Shift several. Keys: ↑ ↓ with Shift, ← takes the
    larger branch, Enter names it, F2 or a double click renames.</p>;
  return (
    <form class="edit" onSubmit={(event) => {
      event.preventDefault();
      if (!able || !text || (one && !splits)) return;
      void state.act(one ? { do: "split", key: of.key, name: one, clusters: part, into: text } : { do: "merge", key: of.key, names: which, into: text }).then(back);
    }}>
      <b>{which.join(" + ")}</b>
      {(!one || splits) && (
        <><span class="row"><input class="space" aria-label="Name of what they become" placeholder={one ? "Name of the new group" : "Name of the merged group"} list="names"
          value={name.value} onFocus={(event) => event.currentTarget.select()} onInput={(event) => (name.value = event.currentTarget.value)} />
          <button class="primary" disabled={!able || !text}>{one ? `Split out ${part.length} of ${members.length}` : `Merge ${which.length}`}</button></span>
          <datalist id="names">{[...new Set(state.groupings.value.flatMap((grouping) => grouping.names))].filter((known) => !/^\d+$/.test(known))
            .map((known) => <option value={known} />)}</datalist></>
      )}
      {!one && part.length < members.length && <span class="hint">A merge takes all {members.length} clusters of these groups.</span>}
      {one && (
        <><span class="swatches" role="group" aria-label={`Colour of ${one}`}>{COLORS.map((to) => (
          <button type="button" aria-label={to} aria-pressed={to === color} disabled={!able} style={{ background: to }} onClick={() => recolor(to)} />))}
          <input type="color" aria-label="Another colour" value={color} disabled={!able} onChange={(event) => recolor(event.currentTarget.value)} /></span>
          <span class="row"><button type="button" disabled={!able} onClick={() => (renaming.value = part[0])}>Rename <kbd>F2</kbd></button>
            <button type="button" onClick={() => (state.channels.value = strongest(of, one))}>Show its markers on the tissue</button></span></>
      )}
    </form>
  );
}

/** A cluster: colour and name of its group, its size; or the field for another name. */
function Row({ of, cluster, row }: { of: api.Clusters; cluster: string; row: number }) {
  const index = of.clusters.indexOf(cluster);
  const [group, size] = [of.metacluster[index], of.sizes[index]];
  const close = (field: HTMLInputElement, keep: boolean) => {
    const to = field.value.trim();
    if (renaming.peek() !== cluster) return;
    renaming.value = "";
    if (keep && to && to !== group) void state.act({ do: "rename", key: of.key, name: group, to });
  };
  if (renaming.value === cluster)
    return <input class="renamed" aria-label={`New name of ${group}`} defaultValue={group} ref={(field) => field?.select()}
      onBlur={(event) => close(event.currentTarget, true)}
      onKeyDown={(event) => [event.stopPropagation(), /Enter|Escape/.test(event.key) && [close(event.currentTarget, event.key === "Enter"), back()]]} />;
  return (
    <button role="option" aria-selected={picked.value.has(cluster)} tabIndex={at.value === row ? 0 : -1} class={pointed.value?.[0] === row ? "pointed" : ""}
      title={`${group}, cluster ${cluster}: ${size.toLocaleString("en")} cells`} onDblClick={() => state.writable.value && (renaming.value = cluster)}
      onClick={(event) => {
        const [from, to] = event.shiftKey ? [at.value, row].sort((a, b) => a - b) : [row, row];
        if (to > from) picked.value = new Set([...picked.value, ...of.order.slice(from, to + 1).map((one) => of.clusters[one])]);
        else pick([cluster], event.shiftKey || event.ctrlKey || event.metaKey);
        at.value = row;
      }}>
      <i style={{ background: of.colors[of.names.indexOf(group)] }} />
      <span>{group}{group !== cluster && <small> {cluster}</small>}</span>
      <s style={{ width: `${(28 * size) / Math.max(...of.sizes)}px` }} />
    </button>
  );
}

function Examples({ of, group }: { of: api.Clusters; group: string }) {
  const channels = strongest(of, group);
  return (
    <>
      <p class="hint">Strongest markers:{channels.map((one) => (
        <b class="dot"><i style={{ background: one.color }} />{state.start.value!.channels[one.channel]}</b>))}</p>
      {(["typical", "doubtful"] as const).map((kind) => examples.value![kind].length > 0 && (
        <><h3>{kind === "typical" ? "Typical cells" : "Doubtful cells, almost as close to another group"}</h3>
          <div class="crops six">{examples.value![kind].map((row) => <Crop key={row} row={row} channels={channels} />)}</div></>
      ))}
    </>
  );
}

export function Clusters() {
  const of = shown.value;
  if (state.blind.value) return <p class="hint">Clusters are hidden while regions are judged.</p>;
  const make = (step: api.Do, made: string) => {
    busy.value = true;
    void state.act(step).then((kept) => [(busy.value = false), kept && (key.value = made)]);
  };
  return (
    <>
      {state.groupings.value.length > 0 && <p class="row top"><Choose label="Clusters" of={key} options={state.groupings.value.map((one) => [one.key, one.key])} />
        <span class="space" /><button class="wider" aria-pressed={whole.value} onClick={() => (whole.value = !whole.value)}>{whole.value ? "Narrower" : "Wider"}</button></p>}
      {of && (
        <>
          <div class="heat" style={{ "--row": `${height.value}px` }}>
            <div style={{ paddingTop: `${HEAD}px` }}><Tree /></div>
            <div style={{ paddingTop: `${HEAD}px` }} role="listbox" aria-multiselectable="true" aria-label="Clusters" onKeyDown={(event) => press(event, of)}>
              {of.order.map((cluster, row) => <Row key={of.clusters[cluster]} of={of} cluster={of.clusters[cluster]} row={row} />)}
            </div>
            <HeatMap of={of} />
          </div>
          <p class="hint" aria-live="polite">
            {pointed.value
              ? `${of.metacluster[of.order[pointed.value[0]]]}, ${of.markers[pointed.value[1]]}: mean score ${of.means[of.order[pointed.value[0]]][pointed.value[1]].toFixed(2)}`
              : `${of.clusters.length} clusters, ${of.names.length} groups; ${Math.round(100 * of.share_named)} % of ${state.start.value!.n_cells.toLocaleString("en")} cells have a name`}
          </p>
          <Edit of={of} />
          {examples.value && groups.value.length === 1 && <Examples of={of} group={groups.value[0]} />}
          {of.history.length > 0 && <details><summary>History: {of.history.length} steps</summary><ol>{of.history.map((step) => <li>{step}</li>)}</ol></details>}
        </>
      )}
      <p class="row">
        <button disabled={!state.writable.value || busy.value} onClick={() => make({ do: "cluster" }, "flowsom_nimbus")}>Cluster the cells</button>
        <button disabled={!state.writable.value || busy.value} onClick={() => make({ do: "types" }, "cell_type_nimbus")}>Name types</button>
      </p>
      <p class="hint" role="status">{busy.value ? "At work; this can take a minute." : "Made from the scores, by the markers that tell cell types apart; clusters or types that were made so before are replaced."}</p>
    </>
  );
}
