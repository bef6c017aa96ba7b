import { mount } from "svelte";
import App from "./App.svelte";
import "./report.css";
import { KernelSource } from "./data/kernel";
import { EmbedSource } from "./data/source";

const target = document.getElementById("app")!;
try {
  // The page holds its run, or stands in a notebook whose kernel has it.
  const source = KernelSource.isMeant(document) ? await KernelSource.open() : await EmbedSource.fromPage(document);
  mount(App, { target, props: { source } });
} catch (reason) {
  // Nothing of the page stands yet that could say so.
  const sentence = document.createElement("p");
  sentence.className = "note";
  sentence.setAttribute("role", "alert");
  sentence.textContent = reason instanceof Error ? reason.message : String(reason);
  target.append(sentence);
}
