import type { Screen } from "./screen";
import * as Bench from "./Bench.svelte";
import * as Compare from "./Compare.svelte";
import * as Jobs from "./Jobs.svelte";
import * as Learn from "./Learn.svelte";
import * as Run from "./Run.svelte";
import * as Runs from "./Runs.svelte";
import * as Start from "./Start.svelte";

/** The screens in the order of the bar at the top. */
export const SCREENS: readonly Screen[] = [Runs, Start, Jobs, Bench, Compare, Learn, Run];
