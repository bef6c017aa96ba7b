import type { Page } from "./page";
import * as Ablated from "./Ablated.svelte";
import * as Atlas from "./Atlas.svelte";
import * as Beside from "./Beside.svelte";
import * as Calibration from "./Calibration.svelte";
import * as Collateral from "./Collateral.svelte";
import * as Compare from "./Compare.svelte";
import * as Compression from "./Compression.svelte";
import * as Concepts from "./Concepts.svelte";
import * as Damage from "./Damage.svelte";
import * as Depth from "./Depth.svelte";
import * as Disturbance from "./Disturbance.svelte";
import * as Downloads from "./Downloads.svelte";
import * as Features from "./Features.svelte";
import * as Figures from "./Figures.svelte";
import * as Geometry from "./Geometry.svelte";
import * as Interference from "./Interference.svelte";
import * as Learning from "./Learning.svelte";
import * as Maximised from "./Maximised.svelte";
import * as Method from "./Method.svelte";
import * as Neurons from "./Neurons.svelte";
import * as Others from "./Others.svelte";
import * as Overview from "./Overview.svelte";
import * as Phase from "./Phase.svelte";
import * as Populations from "./Populations.svelte";
import * as Reconstruction from "./Reconstruction.svelte";
import * as Recovery from "./Recovery.svelte";
import * as Site from "./Site.svelte";
import * as Sparing from "./Sparing.svelte";
import * as Sparsity from "./Sparsity.svelte";
import * as Steering from "./Steering.svelte";
import * as Superposition from "./Superposition.svelte";
import * as Sycophancy from "./Sycophancy.svelte";
import * as Together from "./Together.svelte";
import * as ToyLab from "./ToyLab.svelte";
import * as Truth from "./Truth.svelte";
import * as Widths from "./Widths.svelte";

/** The sections in the page's order. */
export const PAGES: readonly Page[] = [
  Overview,
  Site,
  Superposition,
  Sparsity,
  Reconstruction,
  Geometry,
  Interference,
  Neurons,
  Atlas,
  Features,
  ToyLab,
  Phase,
  Recovery,
  Depth,
  Widths,
  Populations,
  Maximised,
  Together,
  Ablated,
  Sycophancy,
  Collateral,
  Compression,
  Disturbance,
  Steering,
  Damage,
  Concepts,
  Sparing,
  Compare,
  Truth,
  Calibration,
  Beside,
  Figures,
  Learning,
  Others,
  Method,
  Downloads,
];

/** The measurements that have a place in a section by site. */
export const PLACED: ReadonlySet<string> = new Set(
  PAGES.filter(({ about }) => about.of !== "run").flatMap(({ about }) => about.measurements ?? []),
);
