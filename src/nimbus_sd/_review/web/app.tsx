// The page: markers left, tissue in the centre, tabs right.
import { render } from "preact";
import { Clusters } from "./clusters";
import { Judge } from "./judge";
import * as state from "./state";
import { Tuning } from "./tuning";

const TABS = { Scores: () => <p class="hint">Scores come here.</p>, Clusters, Judge, "Fine-tune": Tuning };

function App() {
  const Shown = TABS[state.tab.value as keyof typeof TABS] ?? TABS.Scores;
  return (
    <main>
      <nav role="tablist">
        {Object.keys(TABS).map((name) => (
          <button role="tab" aria-selected={state.tab.value === name} onClick={() => (state.tab.value = name)}>{name}</button>
        ))}
      </nav>
      <section role="tabpanel"><Shown /></section>
    </main>
  );
}

void state.open();
render(<App />, document.getElementById("app")!);
Object.defineProperty(window, "nimbus", { value: Object.freeze({ state }) });
