export const Judge = () => <p class="hint">Judging of regions comes here.</p>;
