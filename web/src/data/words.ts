/** The measurements this page has met: what each is called, where it is shown, and how it is computed. */

export type Group = "superposition" | "sparsity" | "reconstruction" | "geometry" | "neurons" | "site";

export interface Word {
  label: string;
  group: Group;
  definition: string;
  /** How to read it, for someone who has never met it. */
  reading: string;
}

export const WORDS: Record<string, Word> = {
  tokens: {
    label: "Tokens read",
    group: "site",
    definition: "Tokens whose activations at this site the dictionaries were learned from; each gives one vector x. What a measurement was made on is the n beside it.",
    reading: "More tokens show rarer features.",
  },
  dimensions: {
    label: "Dimensions",
    group: "site",
    definition: "d, the length of the activation vector x at this site.",
    reading: "As many features fit without any overlap; more only in superposition.",
  },
  recurring_features: {
    label: "Recurring features",
    group: "superposition",
    definition:
      "Several dictionaries are trained on the same activations from different seeds. Their alive atoms are matched one to one, closest first, wherever the cosine exceeds 0.7; a direction counts if every dictionary has an atom for it.",
    reading: "A count of directions that do not depend on the seed. Rare features are missed, so read it as “at least”.",
  },
  recurring_per_dimension: {
    label: "Recurring features per dimension",
    group: "superposition",
    definition: "Recurring features divided by d.",
    reading: "Above 1 the site holds more recurring directions than it has dimensions.",
  },
  participation_ratio: {
    label: "Dimensions in use",
    group: "superposition",
    definition: "Participation ratio: (Σ λᵢ)² / Σ λᵢ², with λ the eigenvalues of the covariance of x.",
    reading: "How many principal directions carry the variance: 1 if a single one does, d if all do equally.",
  },
  entropy_effective_latents: {
    label: "Effective latents",
    group: "superposition",
    definition: "exp(−Σ pᵢ ln pᵢ), with pᵢ the share of latent i in all activation, E|fᵢ| / Σ E|f|.",
    reading: "The entropy-effective dimension of the code: how many equally used latents would spread activation as evenly.",
  },
  l0: {
    label: "Active latents per token",
    group: "sparsity",
    definition: "Mean number of nonzero latents per token (L0).",
    reading: "Few active latents per token is what makes superposition workable.",
  },
  median_density: {
    label: "Median density",
    group: "sparsity",
    definition: "Density of a latent is P(fᵢ ≠ 0), the share of tokens on which it is active; this is the median over the alive ones.",
    reading: "0.01 means active on one token in a hundred.",
  },
  code_gini: {
    label: "Gini index of the code",
    group: "sparsity",
    definition: "Gini index of |f| over all latents, at one token; averaged over tokens.",
    reading: "0 if all latents are equally active, near 1 if very few carry everything.",
  },
  activation_gini: {
    label: "Gini index of the activation",
    group: "sparsity",
    definition: "Gini index of |x| over the coordinates of one token, averaged over tokens.",
    reading: "The same index before any dictionary; near 0.41 for Gaussian noise.",
  },
  activation_hoyer: {
    label: "Hoyer index of the activation",
    group: "sparsity",
    definition: "(√d − ‖x‖₁ / ‖x‖₂) / (√d − 1), averaged over tokens.",
    reading: "0 if all coordinates are equal in size, 1 if a single one is nonzero.",
  },
  activation_entropy_dimension: {
    label: "Entropy-effective dimension",
    group: "sparsity",
    definition: "exp(−Σ pⱼ ln pⱼ), with pⱼ the share of coordinate j in the activation, E|xⱼ| / Σ E|x|.",
    reading: "How many equally large coordinates would spread x as evenly; d if all are used alike.",
  },
  fraction_variance_unexplained: {
    label: "Variance unexplained",
    group: "reconstruction",
    definition: "Σ‖x − x̂‖² / Σ‖x − x̄‖², with x̂ the reconstruction and x̄ the mean over all tokens.",
    reading: "0 is a perfect reconstruction, 1 is no better than always answering the mean.",
  },
  fraction_variance_unexplained_over_seeds: {
    label: "Variance unexplained, mean over seeds",
    group: "reconstruction",
    definition: "The same fraction for each dictionary, averaged over seeds.",
    reading: "Its range tells how much the figure depends on the random start.",
  },
  cross_entropy_added: {
    label: "Cross-entropy added",
    group: "reconstruction",
    definition: "Next-token cross-entropy with x̂ in place of x, less that of the model untouched.",
    reading: "What the model loses, in nats per token, when it runs on the reconstruction.",
  },
  cross_entropy_recovered: {
    label: "Cross-entropy recovered",
    group: "reconstruction",
    definition:
      "(CE ablated − CE with x̂ in place of x) / (CE ablated − CE of the model), in next-token cross-entropy; ablated means the site's mean in place of x.",
    reading: "1 if the model predicts as well from the reconstruction as from x.",
  },
  alive_latents: {
    label: "Alive latents",
    group: "reconstruction",
    definition: "Latents active on at least one of the tokens read.",
    reading: "The rest of the dictionary is unused on this text.",
  },
  coherence: {
    label: "Coherence",
    group: "geometry",
    definition: "Largest |cosine| between two different atoms of the dictionary.",
    reading: "No dictionary of n atoms in d dimensions is below the Welch bound.",
  },
  mean_max_cosine: {
    label: "Mean nearest cosine",
    group: "geometry",
    definition: "Largest |cosine| of each atom to any other, averaged over atoms.",
    reading: "Above the random frame, atoms come in families; below it, they avoid each other.",
  },
  interference_energy: {
    label: "Interference",
    group: "geometry",
    definition: "Sum of an atom's squared cosines with all others, averaged over atoms.",
    reading: "What reading out one feature picks up from all others; where n is far above d, hardly more than chance for any dictionary.",
  },
  polysemanticity: {
    label: "Features per neuron",
    group: "neurons",
    definition:
      "Feature i's share in neuron j is sᵢ = E|wᵢⱼ fᵢ| / Σ E|wⱼ f|; exp(−Σ sᵢ ln sᵢ) is the neuron's effective number of features. This is the median over neurons.",
    reading: "1 is a neuron for a single feature; a random rotation shows what axes without meaning would give.",
  },
};

export function wordFor(name: string): Word | undefined {
  return Object.hasOwn(WORDS, name) ? WORDS[name] : undefined;
}

/** A readable name for any measurement, column or setting. */
export function labelOf(name: string): string {
  const known = wordFor(name)?.label;
  if (known) return known;
  const words = name.replaceAll("_", " ");
  // n, d and k are the symbols themselves.
  if (words.length === 1) return words;
  return words.charAt(0).toUpperCase() + words.slice(1);
}
