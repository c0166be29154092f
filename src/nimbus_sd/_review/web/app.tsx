// The page: markers left, tissue in the centre, tabs right; dialogs, notices and keys.
import { signal } from "@preact/signals";
import { type ComponentChildren, render } from "preact";
import { Choose } from "./charts";
import { Clusters } from "./clusters";
import { Judge } from "./judge";
import { Markers, stepMarker } from "./markers";
import { GIVE, give, Proofread } from "./proofread";
import { Scores } from "./scores";
import * as state from "./state";
import { Tissue, toggleChannel, viewer } from "./tissue";
import { compare, Tuning } from "./tuning";

const TABS = { Scores, Clusters, Judge, "Fine-tune": Tuning };
const help = signal(false);
const looking = signal(false); // the user was told that another page writes, and only looks
const drawer = signal<"" | "left" | "right">(""); // which side is open on a narrow window

const zoom = (factor: number) => viewer.value?.zoomBy(factor);
const pan = (x: number, y: number) => viewer.value?.panBy(x, y);
const KEYS: [string[], string, (key: string) => unknown][] = [
  ...GIVE.map(([to, key, name]): [string[], string, () => unknown] => [[key], `${name}: the selected cell`, () => give(to)]),
  [["0", "Backspace"], "Take the state of the selected cell away", () => give(0)],
  [["n"], "Next doubtful cell", state.next],
  [["z"], "Undo the last step", state.undo],
  [["s"], "Save into the store", state.save],
  [["[", "]"], "Threshold down, up by 0.01", (key) => state.dragThreshold(state.threshold.value + (key === "[" ? -0.01 : 0.01))],
  [["j", "k"], "Next, previous marker", (key) => stepMarker(key === "j" ? 1 : -1)],
  [["1", "2", "3"], "Channel on or off", (key) => toggleChannel(Number(key) - 1)],
  [["a", "b"], "Old, new scores after fine-tuning", compare],
  [["o"], "Outlines or fills", () => (state.mode.value = state.mode.value === "fills" ? "outlines" : "fills")],
  [["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], "Move over the tissue", (key) =>
    pan(...({ ArrowLeft: [-80, 0], ArrowRight: [80, 0], ArrowUp: [0, -80], ArrowDown: [0, 80] }[key] as [number, number]))],
  [["w", "e"], "Zoom out, in", (key) => zoom(key === "w" ? 1 / 1.5 : 1.5)],
  [["f"], "Whole region", () => viewer.value?.fit()],
  [["Escape"], "Select nothing, close", () => [state.selectCell(null), (drawer.value = ""), closePops()]],
  [["h", "F1"], "This help", () => (help.value = true)],
];
document.addEventListener("keydown", (event) => {
  const target = event.target as HTMLElement;
  const typing = target.matches("input:not([type=checkbox], [type=range]), textarea");
  const moves = event.key.startsWith("Arrow") && target.matches("input, select, [role=slider]");
  if (typing || moves || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const found = KEYS.find(([keys]) => keys.includes(event.key));
  if (found) [event.preventDefault(), found[2](event.key)];
});
let settling = 0; // keys that move the threshold make one step together
document.addEventListener("keyup", () => {
  clearTimeout(settling);
  settling = window.setTimeout(state.setThreshold, 600);
});
document.addEventListener("click", (event) => closePops(event.target as Node));
function closePops(but: Node | null = null) {
  for (const pop of document.querySelectorAll("details[open]")) if (!pop.contains(but)) pop.removeAttribute("open");
}

function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ComponentChildren }) {
  return (
    <dialog aria-label={title} onClose={onClose} ref={(element) => { if (element?.isConnected && !element.open) element.showModal(); }}>
      <h2>{title}</h2>
      {children}
    </dialog>
  );
}

const Fold = ({ side, children }: { side: "left" | "right"; children: string }) => (
  <button class="fold" aria-expanded={drawer.value === side} onClick={() => (drawer.value = drawer.value === side ? "" : side)}>
    {children}
  </button>
);

function Header() {
  const first = state.start.value;
  const [unsaved, step, writable] = [state.unsaved.value, state.undoStep.value, state.writable.value];
  const layers = first?.layers.map((name): [string, string] => [name, name]) ?? [];
  return (
    <header>
      <Fold side="left">Markers</Fold>
      <b class="store" title={first?.store}>{first?.store.split(/[\\/]/).pop() ?? "nimbus-sd review"}</b>
      {first && <Choose label="Region" of={state.region} options={first.regions.map((one, index) =>
        [index, `${one.name} (${one.cells.toLocaleString("en")} cells)`])} />}
      {layers.length > 1 && <Choose label="Scores" of={state.layer} disabled={state.blind.value} options={layers} />}
      <span class="space" />
      <button disabled={!writable || !step} onClick={state.undo} title={step ?? "Nothing to undo"}>
        Undo{step && <span class="step">: {step}</span>} <kbd>z</kbd>
      </button>
      <button class="primary" disabled={!writable || !unsaved || !!first?.readonly || state.saving.value} onClick={state.save}
        title="Steps are kept in a log as they are made; Save writes them into the store">
        {state.saving.value ? "Saving …" : unsaved ? `Save ${unsaved} step${unsaved > 1 ? "s" : ""}` : "Saved"} <kbd>s</kbd>
      </button>
      <button onClick={() => (help.value = true)}>Help <kbd>h</kbd></button>
      <Fold side="right">Panels</Fold>
    </header>
  );
}

function Banner() {
  const first = state.start.value;
  if (state.lost.value)
    return <p class="banner bad" role="alert">nimbus-sd does not answer. Steps up to here are in its log; nothing new is kept.
      This page goes on when it answers; if it ended, start it again and open the address that it prints. <button onClick={() => state.open()}>Try now</button></p>;
  if (first?.readonly) return <p class="banner">Nothing is kept, and nothing can be saved: {first.readonly}</p>;
  if (first && state.page.value === null && looking.value)
    return <p class="banner">Only looking: another page reviews this store. <button onClick={() => state.open(true)}>Take over</button></p>;
  return null;
}

const Notices = () => (
  <div class="notices" role="status">
    {state.notices.value.map((notice) => (
      <p class={notice.bad ? "bad" : ""}>{notice.text}
        <button aria-label="Dismiss" onClick={() => (state.notices.value = state.notices.value.filter((one) => one !== notice))}>×</button></p>
    ))}
  </div>
);

function App() {
  const Panel = TABS[state.tab.value as keyof typeof TABS] ?? TABS.Scores;
  const first = state.start.value;
  const asks = first && state.page.value === null && !state.lost.value && !looking.value;
  return (
    <>
      <Header />
      <Banner />
      <main class={drawer.value + (state.tab.value === "Clusters" ? " wide" : "")}>
        <aside class="left" aria-label="Markers">{first && <Markers />}</aside>
        <section class="centre" aria-label="Tissue">{first ? <Tissue /> : <p role="status">Opening …</p>}<Proofread /><Notices /></section>
        <aside class="right">
          <nav role="tablist">
            {Object.keys(TABS).map((name) => (
              <button role="tab" aria-selected={state.tab.value === name} onClick={() => (state.tab.value = name)}>{name}</button>
            ))}
          </nav>
          <section role="tabpanel" aria-label={state.tab.value}>{first && <Panel />}</section>
        </aside>
      </main>
      {help.value && (
        <Dialog title="Keys" onClose={() => (help.value = false)}>
          <dl class="keys">{KEYS.map(([keys, what]) => <><dt>{keys.map((key) => <kbd>{key.replace("Arrow", "")}</kbd>)}</dt><dd>{what}</dd></>)}</dl>
          <form method="dialog"><button class="primary">Close</button></form>
        </Dialog>
      )}
      {asks && (
        <Dialog title="Another page reviews this store" onClose={() => (looking.value = true)}>
          <p>One page writes at a time. If you take over, the other page is told and can only look.</p>
          <form method="dialog"><button class="primary" onClick={() => state.open(true)}>Take over</button> <button>Only look</button></form>
        </Dialog>
      )}
    </>
  );
}

setInterval(() => state.lost.value && state.open(), 3000);
void state.open();
render(<App />, document.getElementById("app")!);
Object.defineProperty(window, "nimbus", { value: Object.freeze({ state, get viewer() { return viewer.value; } }) });
