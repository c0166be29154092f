// The tissue on a WebGL2 canvas. Tiles of channels and of cells (row + 1 of the table) come once; a cell's colour is
// looked up by its row, so that thresholds, corrections and merges change one small texture and no tile.
import { type Region, request } from "./api";

export interface View { x: number; y: number; scale: number } // centre in pixels of the region; screen pixels per pixel
export interface Channel { channel: number; color: string; low: number; high: number; top: number }
export interface Options {
  onHover(row: number | null, x: number, y: number): void;
  onClick(row: number | null): void;
  onView(view: View): void;
  onError?(error: Error): void;
}
interface Tile { texture: WebGLTexture | null; ids: Uint32Array | null; width: number; height: number; used: number; stop: AbortController | null; retry: number }

const SIDE = 512;
const WIDE = 2048; // rows of the table side by side in the texture of their values
const MEMORY = 220; // tiles that are kept
const REQUESTS = 6;

const VERTEX = `#version 300 es
in vec2 corner;
uniform vec4 place; // clip coordinates of the tile: left, top, width, height
uniform vec2 size; // of the tile in its own pixels
out vec2 at;
void main() {
  at = corner * size;
  gl_Position = vec4(place.xy + corner * place.zw, 0, 1);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
in vec2 at;
out vec4 result;
uniform sampler2D image0, image1, image2, palette, scores;
uniform usampler2D cells, values;
uniform vec4 part[4]; // where the tile lies in the texture of each channel and of cells: offset, factor, 1 if it is there
uniform vec3 color[3];
uniform vec3 contrast[3]; // black, white, end of the scale
uniform float dot; // pixels of the tile per pixel of the screen
uniform float opacity;
uniform bool filled, colored, called;
uniform float threshold;
uniform uint selected;

vec3 light(sampler2D image, int i) {
  if (part[i].w == 0.) return vec3(0);
  float root = texture(image, (at * part[i].z + part[i].xy) / vec2(textureSize(image, 0))).r;
  return color[i] * clamp((root * root * contrast[i].z - contrast[i].x) / (contrast[i].y - contrast[i].x), 0., 1.);
}
uint cell(vec2 off) {
  vec2 inside = clamp((at + off * dot) * part[3].z + part[3].xy, vec2(0), vec2(textureSize(cells, 0)) - .5);
  return texelFetch(cells, ivec2(inside), 0).r;
}
uint call(float score) { // negative, doubtful on either side, positive; none without a score
  if (!(score >= 0.)) return 0u;
  return score < threshold ? (score < .25 ? 1u : 2u) : (score > .75 ? 4u : 3u);
}
bool edge(uint own, float reach) {
  return cell(vec2(reach, 0)) != own || cell(vec2(-reach, 0)) != own || cell(vec2(0, reach)) != own || cell(vec2(0, -reach)) != own;
}
void main() {
  vec3 shown = min(light(image0, 0) + light(image1, 1) + light(image2, 2), vec3(1));
  uint own = part[3].w == 0. ? 0u : cell(vec2(0));
  if (own != 0u) {
    int row = int(own) - 1;
    ivec2 place = ivec2(row % ${WIDE}, row / ${WIDE});
    uint value = called ? call(texelFetch(scores, place, 0).r) : colored ? texelFetch(values, place, 0).r : 0u;
    vec3 paint = value == 0u ? vec3(.62) : texelFetch(palette, ivec2(int(value - 1u) % 256, int(value - 1u) / 256), 0).rgb;
    bool border = edge(own, filled ? .7 : 1.3);
    if (own == selected && edge(own, 2.6)) shown = vec3(1);
    else if (filled && value != 0u) shown = mix(shown, border ? paint * .45 : paint, opacity);
    else if (border) shown = mix(shown, paint, value == 0u ? .55 * opacity : opacity);
  }
  result = vec4(shown, 1);
}`;

const rgb = (color: string) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
const padded = (values: ArrayLike<number>) => WIDE * (Math.ceil(values.length / WIDE) || 1);
const clamp = (value: number, low: number, high: number) => Math.min(Math.max(value, low), high);

export class Viewer {
  view: View = { x: 0, y: 0, scale: 1 };
  private canvas = document.createElement("canvas");
  private pulse = document.createElement("div");
  private gl!: WebGL2RenderingContext;
  private at!: Record<string, WebGLUniformLocation | null>;
  private valuesTexture!: WebGLTexture;
  private paletteTexture!: WebGLTexture;
  private scoresTexture!: WebGLTexture;
  private tiles = new Map<string, Tile>();
  private region: Region | null = null;
  private number = 0;
  private channels: Channel[] = [];
  private values: Uint16Array | null = null;
  private scores: Float32Array | null = null;
  private threshold = 0.5;
  private palette: string[] = [];
  private filled = false;
  private opacity = 1;
  private selected: number | null = null;
  private frame = 0;
  private moving = 0;
  private times: number[] = []; // of the last frames
  private cost = 0;
  private watch = new ResizeObserver(() => this.resize());
  private listeners = new AbortController();

  constructor(readonly host: HTMLElement, private options: Options) {
    this.pulse.className = "pulse";
    host.prepend(this.canvas, this.pulse);
    const gl = this.canvas.getContext("webgl2", { antialias: false, alpha: false });
    if (!gl) throw new Error("This browser has no WebGL2, which the tissue needs.");
    this.gl = gl;
    this.prepare();
    this.listen();
    this.watch.observe(host);
    this.resize();
  }

  /** Shows a region, at a view or as a whole. */
  setRegion(number: number, region: Region, view: View | null = null) {
    [this.number, this.region] = [number, region];
    const [x, y, width] = region.home ?? [];
    this.view = view ?? (width ? { x: x!, y: y!, scale: this.host.clientWidth / width } : this.whole());
    this.changed(true);
  }
  /** Shows up to three channels, in colours (#rrggbb) that are added up; contrast in the image's unit. */
  setChannels(channels: Channel[]) {
    this.channels = channels.slice(0, 3);
    this.changed();
  }
  /** Colours cells: value k of a row is palette[k - 1], 0 has no colour; null colours none. */
  setColors(values: Uint8Array | Uint16Array | null, palette: string[]) {
    const { gl } = this;
    this.values = values && (values instanceof Uint16Array ? values : Uint16Array.from(values));
    this.scores = null;
    if (this.values) this.upload(4, this.valuesTexture, gl.R16UI, gl.RED_INTEGER, gl.UNSIGNED_SHORT, this.values, new Uint16Array(padded(this.values)));
    this.setPalette(palette);
  }
  /** Colours cells by call: negative, doubtful on either side of the threshold, positive are palette[0] to [3]. */
  setCalls(scores: Float32Array, threshold: number, palette: string[]) {
    const { gl } = this;
    if (scores !== this.scores) this.upload(6, this.scoresTexture, gl.R32F, gl.RED, gl.FLOAT, scores, new Float32Array(padded(scores)).fill(-1));
    [this.scores, this.threshold] = [scores, threshold];
    this.setPalette(palette);
  }
  private upload<T extends Uint16Array | Float32Array>(unit: number, texture: WebGLTexture, kept: number, format: number, type: number, values: T, into: T) {
    const { gl } = this;
    into.set(values);
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, kept, WIDE, into.length / WIDE, 0, format, type, into);
  }
  private setPalette(palette: string[]) {
    const { gl } = this;
    if (palette !== this.palette) {
      this.palette = palette;
      const colors = new Uint8Array(4 * 256 * Math.max(1, Math.ceil(palette.length / 256)));
      palette.forEach((color, at) => colors.set(rgb(color), 4 * at));
      gl.activeTexture(gl.TEXTURE5);
      gl.bindTexture(gl.TEXTURE_2D, this.paletteTexture);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 256, colors.length / 1024, 0, gl.RGBA, gl.UNSIGNED_BYTE, colors);
    }
    this.changed();
  }
  setStyle(mode: string, opacity: number) {
    [this.filled, this.opacity] = [mode === "fills", opacity];
    this.changed();
  }
  /** Rings the cell of a row in white. */
  setSelected(row: number | null) {
    this.selected = row;
    this.changed();
  }
  /** Moves by pixels of the screen. */
  panBy(x: number, y: number) {
    this.moveTo({ ...this.view, x: this.view.x + x / this.view.scale, y: this.view.y + y / this.view.scale });
  }
  /** Zooms about a point of the screen, by default the middle. */
  zoomBy(factor: number, x = this.host.clientWidth / 2, y = this.host.clientHeight / 2) {
    const [left, top] = this.toRegion(x, y);
    const scale = clamp(this.view.scale * factor, this.whole().scale / 2, 40);
    const kept = this.view.scale / scale;
    this.moveTo({ x: left + (this.view.x - left) * kept, y: top + (this.view.y - top) * kept, scale });
  }
  fit() {
    this.glide(this.whole());
  }
  /** Moves to a position, so that so many pixels of the region are seen across, and marks it. */
  goTo(x: number, y: number, width: number) {
    this.glide({ x, y, scale: clamp(this.host.clientWidth / width, this.whole().scale, 40) });
    this.pulse.classList.remove("on");
    void this.pulse.offsetWidth; // begins the animation anew
    this.pulse.classList.add("on");
  }
  /** The row of the cell at a point of the screen. */
  pick(x: number, y: number): number | null {
    const [left, top] = this.toRegion(x, y);
    if (!this.region || left < 0 || top < 0 || left >= this.region.width || top >= this.region.height) return null;
    for (let level = 0; level < this.region.levels; level++) {
      const side = SIDE * 2 ** level;
      const tile = this.tiles.get(this.key("cells", level, Math.floor(top / side), Math.floor(left / side)));
      if (!tile?.ids) continue;
      const id = tile.ids[Math.floor((top % side) / 2 ** level) * tile.width + Math.floor((left % side) / 2 ** level)];
      return id ? id - 1 : null;
    }
    return null;
  }
  /** For tests: tiles on their way and there, frames a second and milliseconds a frame of the last ones. */
  stats() {
    const [first, last] = [this.times[0], this.times[this.times.length - 1]];
    const tiles = [...this.tiles.values()];
    const [pending, loaded] = [tiles.filter((tile) => tile.stop).length, tiles.filter((tile) => tile.texture).length];
    return { pending, loaded, frames: this.times.length, fps: (1000 * (this.times.length - 1)) / (last - first), cost: this.cost };
  }
  destroy() {
    this.listeners.abort();
    this.watch.disconnect();
    cancelAnimationFrame(this.frame);
    cancelAnimationFrame(this.moving);
    this.forget();
    this.canvas.remove();
    this.pulse.remove();
  }

  private prepare() {
    const { gl } = this;
    const program = gl.createProgram()!;
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]] as [number, string][]) {
      const shader = gl.createShader(kind)!;
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost())
      throw new Error(`The tissue cannot be drawn: ${gl.getProgramInfoLog(program)}`);
    gl.useProgram(program);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([0, 0, 1, 0, 0, 1, 1, 1]), gl.STATIC_DRAW);
    const corner = gl.getAttribLocation(program, "corner");
    gl.enableVertexAttribArray(corner);
    gl.vertexAttribPointer(corner, 2, gl.FLOAT, false, 0, 0);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    const names = ["place", "size", "part", "color", "contrast", "dot", "opacity", "filled", "colored", "called", "threshold", "selected"];
    this.at = Object.fromEntries(names.map((name) => [name, gl.getUniformLocation(program, name)]));
    ["image0", "image1", "image2", "cells", "values", "palette", "scores"].forEach((name, unit) =>
      gl.uniform1i(gl.getUniformLocation(program, name), unit));
    this.valuesTexture = this.texture(4, gl.NEAREST);
    this.scoresTexture = this.texture(6, gl.NEAREST);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32F, 1, 1, 0, gl.RED, gl.FLOAT, new Float32Array(1));
    this.paletteTexture = this.texture(5, gl.NEAREST);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
    gl.activeTexture(gl.TEXTURE4);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R16UI, 1, 1, 0, gl.RED_INTEGER, gl.UNSIGNED_SHORT, new Uint16Array(1));
    // A sampler of integers must have a texture of integers, also where no cells are drawn.
    this.texture(3, gl.NEAREST);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32UI, 1, 1, 0, gl.RED_INTEGER, gl.UNSIGNED_INT, new Uint32Array(1));
  }
  private texture(unit: number, filter: number) {
    const { gl } = this;
    const texture = gl.createTexture()!;
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, filter);
    for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
    return texture;
  }

  private listen() {
    const { signal } = this.listeners;
    const fingers = new Map<number, [number, number]>();
    let [far, fresh] = [0, true];
    const place = (event: PointerEvent | WheelEvent): [number, number] => {
      const box = this.canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const hear = <K extends keyof HTMLElementEventMap>(name: K, then: (event: HTMLElementEventMap[K]) => void) =>
      this.canvas.addEventListener(name, then, { signal, passive: false });
    hear("pointerdown", (event) => {
      if (event.button) return;
      this.canvas.setPointerCapture(event.pointerId);
      cancelAnimationFrame(this.moving);
      fingers.set(event.pointerId, place(event));
      if (fingers.size === 1) [far, fresh] = [0, true];
      else fresh = false;
    });
    hear("pointermove", (event) => {
      const [x, y] = place(event);
      const before = fingers.get(event.pointerId);
      if (!before) return this.options.onHover(this.pick(x, y), x, y);
      far += Math.hypot(x - before[0], y - before[1]);
      const other = [...fingers].find(([finger]) => finger !== event.pointerId)?.[1];
      fingers.set(event.pointerId, [x, y]);
      if (other) {
        const apart = (one: [number, number]) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
        this.zoomBy(apart([x, y]) / apart(before), (x + other[0]) / 2, (y + other[1]) / 2);
      } else if (far > 4) this.panBy(before[0] - x, before[1] - y);
    });
    const up = (event: PointerEvent) => {
      if (fingers.delete(event.pointerId) && fresh && far <= 4 && event.type === "pointerup") this.options.onClick(this.pick(...place(event)));
    };
    hear("pointerup", up);
    hear("pointercancel", up);
    hear("pointerleave", (event) => this.options.onHover(null, ...place(event)));
    hear("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.04 : 0.0015)), ...place(event));
    });
    hear("webglcontextlost" as "pointerup", (event) => event.preventDefault());
    hear("webglcontextrestored" as "pointerup", () => {
      this.tiles.clear();
      this.prepare();
      const { palette, scores } = this;
      [this.palette, this.scores] = [[], null];
      if (scores) this.setCalls(scores, this.threshold, palette);
      else this.setColors(this.values, palette);
    });
  }

  private whole(): View {
    const [width, height] = [this.region?.width ?? 1, this.region?.height ?? 1];
    const scale = Math.min((this.host.clientWidth || 1) / width, (this.host.clientHeight || 1) / height);
    return { x: width / 2, y: height / 2, scale: Math.min(scale, 40) };
  }
  private toRegion(x: number, y: number): [number, number] {
    const { view, host } = this;
    return [view.x + (x - host.clientWidth / 2) / view.scale, view.y + (y - host.clientHeight / 2) / view.scale];
  }
  private moveTo(view: View) {
    const { width, height } = this.region ?? { width: 1, height: 1 };
    this.view = { ...view, x: clamp(view.x, 0, width), y: clamp(view.y, 0, height) };
    this.changed(true);
  }
  private glide(to: View) {
    cancelAnimationFrame(this.moving);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return this.moveTo(to);
    const [from, start] = [this.view, performance.now()];
    const step = (now: number) => {
      const part = clamp((now - start) / 250, 0, 1);
      const eased = part * part * (3 - 2 * part);
      const mix = (a: number, b: number) => a + (b - a) * eased;
      this.moveTo({ x: mix(from.x, to.x), y: mix(from.y, to.y), scale: Math.exp(mix(Math.log(from.scale), Math.log(to.scale))) });
      if (part < 1) this.moving = requestAnimationFrame(step);
    };
    this.moving = requestAnimationFrame(step);
  }
  private resize() {
    const dense = devicePixelRatio || 1;
    [this.canvas.width, this.canvas.height] = [Math.round(this.host.clientWidth * dense), Math.round(this.host.clientHeight * dense)];
    this.changed();
  }
  private changed(moved = false) {
    if (moved && this.region) this.options.onView(this.view);
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  private key = (kind: string | number, level: number, row: number, col: number) => `${this.number} ${kind} ${level} ${row} ${col}`;

  private draw() {
    const { gl, region, view, canvas } = this;
    if (!region || gl.isContextLost() || !canvas.width) return;
    const start = performance.now();
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0.055, 0.06, 0.07, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const dense = canvas.width / this.host.clientWidth;
    const level = clamp(Math.round(-Math.log2(view.scale * dense)), 0, region.levels - 1);
    const side = SIDE * 2 ** level;
    const [left, top] = this.toRegion(0, 0);
    const [right, bottom] = this.toRegion(this.host.clientWidth, this.host.clientHeight);
    const kinds: (number | "cells")[] = [...this.channels.map((one) => one.channel), "cells"];
    gl.uniform3fv(this.at.color, this.channels.flatMap((one) => rgb(one.color).map((part) => part / 255)).concat(Array(9).fill(0)).slice(0, 9));
    gl.uniform3fv(this.at.contrast, this.channels.flatMap((one) => [one.low, Math.max(one.high, one.low + 1e-9 * one.top), one.top])
      .concat(Array(9).fill(1)).slice(0, 9));
    gl.uniform1f(this.at.dot, 1 / (view.scale * 2 ** level));
    gl.uniform1f(this.at.opacity, this.opacity);
    gl.uniform1i(this.at.filled, Number(this.filled));
    gl.uniform1i(this.at.colored, Number(!!this.values));
    gl.uniform1i(this.at.called, Number(!!this.scores));
    gl.uniform1f(this.at.threshold, this.threshold);
    gl.uniform1ui(this.at.selected, this.selected === null ? 0 : this.selected + 1);
    const wanted = new Map<string, [number | "cells", number, number, number]>();
    for (const kind of region.home ? [] : kinds) wanted.set(this.key(kind, region.levels - 1, 0, 0), [kind, region.levels - 1, 0, 0]);
    const seen: [number, number][] = [];
    for (let row = Math.max(0, Math.floor(top / side)); row * side < Math.min(bottom, region.height); row++)
      for (let col = Math.max(0, Math.floor(left / side)); col * side < Math.min(right, region.width); col++) seen.push([row, col]);
    const off = ([row, col]: [number, number]) => Math.hypot((row + 0.5) * side - view.y, (col + 0.5) * side - view.x);
    seen.sort((one, other) => off(one) - off(other));
    for (const [row, col] of seen) {
      const parts = new Float32Array(16);
      for (const kind of kinds) {
        wanted.set(this.key(kind, level, row, col), [kind, level, row, col]);
        const unit = kind === "cells" ? 3 : kinds.indexOf(kind);
        for (let up = 0; level + up < region.levels; up++) { // this tile, or what is there of coarser ones
          const tile = this.tiles.get(this.key(kind, level + up, row >> up, col >> up));
          if (!tile?.texture) continue;
          tile.used = start;
          const factor = 2 ** -up;
          parts.set([(col * factor - (col >> up)) * SIDE, (row * factor - (row >> up)) * SIDE, factor, 1], 4 * unit);
          gl.activeTexture(gl.TEXTURE0 + unit);
          gl.bindTexture(gl.TEXTURE_2D, tile.texture);
          break;
        }
      }
      const [width, height] = [Math.min(side, region.width - col * side), Math.min(side, region.height - row * side)];
      const across = (x: number) => ((x * side - left) / (right - left)) * 2 - 1;
      const down = (y: number) => 1 - ((y * side - top) / (bottom - top)) * 2;
      gl.uniform4f(this.at.place, across(col), down(row), (2 * width) / (right - left), (-2 * height) / (bottom - top));
      gl.uniform2f(this.at.size, width / 2 ** level, height / 2 ** level);
      gl.uniform4fv(this.at.part, parts);
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    }
    this.fetch(wanted, start);
    this.times = [...this.times, start].slice(-60);
    this.cost = performance.now() - start;
  }

  /** Asks for tiles in the order of `wanted`, stops asking for others, and lets go of those not used for longest. */
  private fetch(wanted: Map<string, [number | "cells", number, number, number]>, now: number) {
    for (const [key, tile] of this.tiles)
      if (tile.stop && !wanted.has(key)) [tile.stop.abort(), this.tiles.delete(key)];
    let busy = [...this.tiles.values()].filter((tile) => tile.stop).length;
    for (const [key, [kind, level, row, col]] of wanted) {
      const tile = this.tiles.get(key);
      if (busy >= REQUESTS) break;
      if (tile && (tile.texture || tile.stop || tile.retry > now)) continue;
      busy++;
      void this.load(key, kind, level, row, col);
    }
    const spare = [...this.tiles].filter(([key, tile]) => tile.texture && !wanted.has(key)).sort(([, one], [, other]) => one.used - other.used);
    for (const [key, tile] of spare.slice(0, Math.max(0, this.tiles.size - MEMORY))) {
      this.gl.deleteTexture(tile.texture);
      this.tiles.delete(key);
    }
  }
  private async load(key: string, kind: number | "cells", level: number, row: number, col: number) {
    const { gl, region } = this;
    const size = (extent: number, at: number) => Math.min(SIDE, Math.ceil(extent / 2 ** level) - SIDE * at);
    const [width, height, stop] = [size(region!.width, col), size(region!.height, row), new AbortController()];
    const tile: Tile = { texture: null, ids: null, width, height, used: performance.now(), stop, retry: 0 };
    this.tiles.set(key, tile);
    try {
      const query = { region: this.number, level, row, col, ...(kind === "cells" ? {} : { channel: kind }) };
      const answer = await request(kind === "cells" ? "/api/tile/cells" : "/api/tile/image", query, undefined, stop.signal);
      const bytes = await answer.arrayBuffer();
      if (this.tiles.get(key) !== tile) return;
      const texture = this.texture(kind === "cells" ? 3 : 0, kind === "cells" ? gl.NEAREST : gl.LINEAR);
      if (kind === "cells") {
        tile.ids = new Uint32Array(bytes);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32UI, width, height, 0, gl.RED_INTEGER, gl.UNSIGNED_INT, tile.ids);
      } else gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8, width, height, 0, gl.RED, gl.UNSIGNED_BYTE, new Uint8Array(bytes));
      tile.texture = texture;
    } catch (error) {
      if (stop.signal.aborted) return;
      tile.retry = performance.now() + 5000;
      this.options.onError?.(error as Error);
    }
    tile.stop = null;
    this.changed();
  }
  private forget() {
    for (const tile of this.tiles.values()) [tile.stop?.abort(), this.gl.deleteTexture(tile.texture)];
    this.tiles.clear();
  }
}
