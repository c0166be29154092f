// STUB until VIEWER's is here
import type { Region } from "./api";
export interface View { x: number; y: number; scale: number }
export class Viewer {
  constructor(readonly host: HTMLElement, _options: any) {}
  setRegion(_i: number, _r: Region, _v?: View | null) {}
  setChannels(_c: any[]) {}
  setColors(_values: Uint8Array, _palette: string[]) {}
  setStyle(_mode: string, _opacity: number) {}
  setSelected(_row: number | null) {}
  panBy(_x: number, _y: number) {}
  zoomBy(_f: number) {}
  fit() {}
  goTo(_x: number, _y: number, _width: number) {}
  view: View = { x: 0, y: 0, scale: 1 };
  destroy() {}
}
