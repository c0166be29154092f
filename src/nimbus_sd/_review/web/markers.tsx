// The list of markers, the most doubtful first.
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Marker } from "./api";
import { Bars } from "./charts";
import * as state from "./state";

const wanted = signal("");
const listed = () => state.markers.value.filter((one) => one.name.toLowerCase().includes(wanted.value.toLowerCase()));
const percent = (share: number | null) => share === null ? "none" : (share > 0 && share < 0.001 ? "<0.1" : (100 * share).toFixed(share < 0.1 ? 1 : 0)) + " %";

export function stepMarker(by: number) {
  const list = listed();
  const at = list.findIndex((one) => one.name === state.markerName.value);
  if (list.length) state.selectMarker(list[(at + by + list.length) % list.length].name);
}

export function Markers() {
  const list = listed();
  return (
    <>
      <h2>Markers <small>most doubtful first</small></h2>
      <input type="search" placeholder="Filter" aria-label="Filter markers" value={wanted.value}
        onInput={(event) => (wanted.value = event.currentTarget.value)} />
      <ul class="markers">{list.map((marker) => <Item key={marker.name} marker={marker} />)}</ul>
      {!list.length && <p class="hint">{wanted.value ? "No marker has this name." : "No marker has scores."}</p>}
    </>
  );
}

function Item({ marker }: { marker: Marker }) {
  const here = state.markerName.value === marker.name;
  const item = useRef<HTMLLIElement>(null);
  useEffect(() => { if (here) item.current?.scrollIntoView({ block: "nearest" }); }, [here]);
  const { share, doubt } = marker;
  return (
    <li ref={item}>
      <button class="marker" aria-current={here} onClick={() => state.selectMarker(marker.name)}>
        <b>{marker.name}</b>
        {!state.blind.value && <><Bars counts={marker.histogram} height={18} threshold={marker.threshold} />
        <span class="share" title="Share of positive cells"><i class="positive" style={{ width: `${100 * (share ?? 0)}%` }} /></span>
        <span class="numbers"><span>{percent(share)} positive</span>{marker.labels > 0 && <span>{marker.labels} labelled</span>}
          <span>{percent(doubt)} doubtful</span></span>
        {marker.flag && <em>{marker.flag}</em>}</>}
      </button>
    </li>
  );
}
