import { mount } from "svelte";
import Learn from "./Learn.svelte";
import { LESSONS } from "./lessons";
import "./report.css";
import "./studio.css";
import * as geometry from "./toy/geometry";
import * as model from "./toy/model";

// For whoever opens the browser's console: what the lessons compute with, and what they hold.
Object.assign(globalThis, { superscope: { ...model, ...geometry, lessons: LESSONS } });

mount(Learn, { target: document.getElementById("app")! });
