import { mount } from "svelte";
import Learn from "./Learn.svelte";
import "./report.css";
import "./studio.css";

mount(Learn, { target: document.getElementById("app")! });
