export const Clusters = () => <p class="hint">Clusters come here.</p>;
