import { mount } from "svelte";
import App from "./App.svelte";
import "./report.css";
import { EmbedSource } from "./data/source";

const target = document.getElementById("app")!;
try {
  mount(App, { target, props: { source: await EmbedSource.fromPage(document) } });
} catch (reason) {
  // Nothing of the page stands yet that could say so.
  const sentence = document.createElement("p");
  sentence.className = "note";
  sentence.setAttribute("role", "alert");
  sentence.textContent = reason instanceof Error ? reason.message : String(reason);
  target.append(sentence);
}
