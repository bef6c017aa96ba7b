import { createHash } from "node:crypto";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

const hashOf = (text: string) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

/**
 * Moves the bundle into its HTML page, so that the page needs no second file, and writes the page's
 * Content-Security-Policy: nothing may be fetched, and only this very script and this very style sheet may act.
 * Token text that slipped through as markup would still be inert.
 */
function oneFile(): Plugin {
  return {
    name: "one-file",
    enforce: "post",
    generateBundle: {
      order: "post",
      handler(_options, bundle) {
        const files = Object.values(bundle);
        const scripts = files.filter((file) => file.type === "chunk");
        const styles = files.filter((file) => file.type === "asset" && file.fileName.endsWith(".css"));
        const page = files.find((file) => file.type === "asset" && file.fileName.endsWith(".html"));
        if (scripts.length !== 1 || styles.length !== 1 || page?.type !== "asset") {
          this.error(`expected one page, one script and one style sheet; got ${Object.keys(bundle).join(", ")}`);
        }
        const [script, style] = [scripts[0]!, styles[0]!];
        // "</script" inside a string constant would end the element; "<\/script" is the same string to JavaScript.
        const js = `\n${script.type === "chunk" ? script.code.replace(/<\/(script)/gi, "<\\/$1") : ""}`;
        const css = `\n${style.type === "asset" ? String(style.source) : ""}`;
        const policy = [
          "default-src 'none'",
          `script-src ${hashOf(js)}`,
          `style-src ${hashOf(css)}`,
          "img-src data:",
          // The live studio asks its own server; a report asks nobody.
          ...(PAGE === "studio.html" ? ["connect-src 'self'"] : []),
          "base-uri 'none'",
          "form-action 'none'",
        ].join("; ");
        let html = String(page.source)
          .replace(/\s*<script type="module"[^>]*><\/script>/, "")
          .replace(/\s*<link rel="stylesheet"[^>]*>/, "");
        // Replacement functions, because "$&" in a bundle is text.
        html = html
          .replace("<!--policy-->", () => `<meta http-equiv="Content-Security-Policy" content="${policy}" />`)
          .replace("</head>", () => `<style>${css}</style>\n</head>`)
          .replace("</body>", () => `<script type="module">${js}</script>\n</body>`);
        if (/<(script|link)[^>]+(src|href)=/.test(html.replace(js, "").replace(css, ""))) {
          this.error("the page still refers to another file");
        }
        page.source = html;
        delete bundle[script.fileName];
        delete bundle[style.fileName];
      },
    },
  };
}

/** Which of the two pages is built: a run's report, or the live studio that shows the same views. One build each. */
const PAGE = process.env.SUPERSCOPE_PAGE ?? "report.html";

export default defineConfig({
  plugins: [svelte(), oneFile()],
  build: {
    target: "es2022",
    outDir: process.env.SUPERSCOPE_STATIC ?? "../superscope/studio/static",
    emptyOutDir: false,
    modulePreload: false,
    assetsInlineLimit: 10_000_000,
    cssCodeSplit: false,
    license: { fileName: "THIRD_PARTY.md" },
    rollupOptions: { input: PAGE },
  },
});
