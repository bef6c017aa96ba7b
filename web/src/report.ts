import { mount } from "svelte";
import App from "./App.svelte";
import "./report.css";
import { KernelSource } from "./data/kernel";
import { EmbedSource } from "./data/source";

// The page holds its run, or stands in a notebook whose kernel has it.
const source = KernelSource.isMeant(document) ? await KernelSource.open() : EmbedSource.fromPage(document);
mount(App, { target: document.getElementById("app")!, props: { source } });
