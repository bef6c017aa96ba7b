import { mount } from "svelte";
import App from "./App.svelte";
import "./report.css";
import { EmbedSource } from "./data/source";

mount(App, { target: document.getElementById("app")!, props: { source: EmbedSource.fromPage(document) } });
