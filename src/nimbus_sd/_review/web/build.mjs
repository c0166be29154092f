// Builds ../page from this folder: one script, one style sheet, and the licences of what is bundled.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const page = "../page";
mkdirSync(page, { recursive: true });
const { metafile } = await build({
  entryPoints: { app: "app.tsx" },
  outdir: page,
  bundle: true,
  minify: true,
  metafile: true,
  target: "es2022",
  legalComments: "none",
});
copyFileSync("index.html", join(page, "index.html"));
await build({ entryPoints: ["style.css"], outfile: join(page, "app.css"), minify: true });

const packages = new Set(
  Object.keys(metafile.inputs).flatMap((path) => path.match(/^node_modules\/(@[^/]+\/)?[^/]+/)?.[0] ?? []),
);
const texts = [...packages].sort().map((folder) => {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  return `${name} ${version} (${license})\n\n${readFileSync(join(folder, "LICENSE"), "utf8").trim()}\n`;
});
writeFileSync(join(page, "LICENSES.txt"), texts.join("\n" + "-".repeat(80) + "\n\n"));
