// What several panels share: a choice, bars of a histogram, a threshold to drag over them, crops of cells.
import type { Signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import * as api from "./api";
import * as state from "./state";

/** One of some options, kept in a signal. */
export function Choose<T extends string | number>({ label, of, options, disabled = false }: {
  label: string; of: Signal<T>; options: [T, string][]; disabled?: boolean;
}) {
  return (
    <label>{label} <select value={of.value} disabled={disabled}
      onChange={(event) => (of.value = options[event.currentTarget.selectedIndex][0])}>
      {options.map(([value, text]) => <option key={value} value={value}>{text}</option>)}
    </select></label>
  );
}

/** Bars of counts, on a square-root scale so that few positives are seen beside many negatives. */
export function Bars({ counts, height, threshold }: { counts: ArrayLike<number>; height: number; threshold: number }) {
  const top = Math.sqrt(Math.max(1, ...Array.from(counts)));
  return (
    <svg class="bars" viewBox={`0 0 ${counts.length} ${height}`} height={height} preserveAspectRatio="none" aria-hidden="true">
      {Array.from(counts, (count, bin) => {
        const tall = (Math.sqrt(count) / top) * height;
        const side = (bin + 0.5) / counts.length < threshold ? "negative" : "positive";
        return <rect class={side} x={bin + 0.05} width={0.9} y={height - tall} height={tall} />;
      })}
    </svg>
  );
}

/** A histogram of scores with the threshold as a slider: dragged, or moved by arrow keys. */
export function Threshold({ counts }: { counts: ArrayLike<number> }) {
  const value = state.threshold.value;
  const drag = (event: PointerEvent) => {
    const slider = event.currentTarget as HTMLElement;
    if (event.type === "pointerdown") slider.setPointerCapture(event.pointerId);
    if (!slider.hasPointerCapture(event.pointerId)) return;
    const box = slider.getBoundingClientRect();
    state.dragThreshold((event.clientX - box.left) / box.width);
    if (event.type === "pointerup") void state.setThreshold();
  };
  const step = (event: KeyboardEvent) => {
    const by = { ArrowLeft: -0.01, ArrowRight: 0.01, PageDown: -0.1, PageUp: 0.1 }[event.key];
    if (by) [event.preventDefault(), state.dragThreshold(value + by)];
  };
  return (
    <div class="histogram" role="slider" tabIndex={0} aria-label="Threshold" aria-valuemin={0} aria-valuemax={1}
      aria-valuenow={value} onKeyDown={step} onPointerDown={drag} onPointerMove={drag} onPointerUp={drag}>
      <i class="doubtful" title="Doubtful: 0.25 to 0.75" />
      <Bars counts={counts} height={90} threshold={value} />
      <i class="threshold" style={{ left: `${100 * value}%` }}><b>{value.toFixed(2)}</b></i>
    </div>
  );
}

const pictures = new Map<string, Promise<ImageBitmap>>();
/** A cell and what is around it, in the channels that are given or those of the tissue; a click goes there. */
export function Crop({ row, note, channels = state.channels.value }: { row: number; note?: string; channels?: state.Shown[] }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const shown = channels.filter((one) => one.on);
  const [key, colors] = [`${row} ${shown.map((one) => one.channel)}`, shown.map((one) => one.color).join(" ")];
  useEffect(() => {
    if (!shown.length) return;
    if (pictures.size > 400) pictures.clear();
    if (!pictures.has(key)) pictures.set(key, api.crop(row, shown.map((one) => one.channel)));
    let wanted = true;
    pictures.get(key)!.then((image) => wanted && canvas.current && tint(canvas.current, image, colors.split(" ")),
      (error) => [pictures.delete(key), wanted && state.told(error)]);
    return () => { wanted = false; };
  }, [key, colors]);
  return (
    <button class={"crop" + (state.selected.value === row ? " selected" : "")} onClick={() => state.selectCell(row, true)}
      aria-label={`Go to this cell${note ? ", " + note : ""}`}>
      <canvas ref={canvas} width={96} height={96} />
      {note && <small>{note}</small>}
    </button>
  );
}

/** Draws red, green and blue of a crop, which are channels, in the colours that the tissue has. */
function tint(canvas: HTMLCanvasElement, image: ImageBitmap, colors: string[]) {
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.drawImage(image, 0, 0, 96, 96);
  const picture = context.getImageData(0, 0, 96, 96);
  const mix = colors.map((color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16) / 255));
  for (let at = 0; at < picture.data.length; at += 4) {
    const parts = mix.map((_, channel) => picture.data[at + channel]);
    for (const side of [0, 1, 2]) picture.data[at + side] = parts.reduce((sum, part, channel) => sum + part * mix[channel][side], 0);
  }
  context.putImageData(picture, 0, 0);
}
