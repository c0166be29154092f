export const Tuning = () => <p class="hint">Fine-tuning comes here.</p>;
