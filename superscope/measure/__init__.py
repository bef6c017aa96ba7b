"""One function per quantity; each returns Measurements with their n, unit, interval and bound or chance level."""

from .activations.attention import AttentionSparsity as AttentionSparsity
from .activations.attention import Patterns as Patterns
from .activations.attention import attention_sparsity as attention_sparsity
from .activations.basis import PrivilegedBasis as PrivilegedBasis
from .activations.basis import privileged_basis as privileged_basis
from .activations.outliers import OutlierShare as OutlierShare
from .activations.outliers import outlier_coordinates as outlier_coordinates
from .activations.outliers import outlier_share as outlier_share
from .activations.spread import activation_sparsity as activation_sparsity
from .agreement.amortisation import amortisation_gap as amortisation_gap
from .agreement.ceilings import oracle_ceilings as oracle_ceilings
from .agreement.correspondence import CORRESPONDENCES as CORRESPONDENCES
from .agreement.correspondence import Correspondence as Correspondence
from .agreement.correspondence import correspondence as correspondence
from .agreement.detection import Detection as Detection
from .agreement.detection import detection as detection
from .agreement.latent_kinds import LATENT_KINDS as LATENT_KINDS
from .agreement.latent_kinds import LatentKinds as LatentKinds
from .agreement.latent_kinds import latent_kinds as latent_kinds
from .agreement.matching import Matching as Matching
from .agreement.matching import feature_nearest_cosine as feature_nearest_cosine
from .agreement.matching import latent_nearest_cosine as latent_nearest_cosine
from .agreement.matching import match as match
from .agreement.matching import mean_matched_cosine as mean_matched_cosine
from .agreement.recovery import Scores as Scores
from .agreement.recovery import atom_scores as atom_scores
from .agreement.recovery import code_scores as code_scores
from .agreement.recovery import recovery_scores as recovery_scores
from .agreement.stability import Recurrence as Recurrence
from .agreement.stability import random_atoms as random_atoms
from .agreement.stability import recurring_features as recurring_features
from .agreement.transfer import Lineage as Lineage
from .agreement.transfer import features_found as features_found
from .agreement.transfer import latent_correlations as latent_correlations
from .agreement.transfer import latents_shared as latents_shared
from .agreement.transfer import lineage as lineage
from .choice import decoder_projection as decoder_projection
from .choice import description_length as description_length
from .choice import mean_overlap as mean_overlap
from .codes.bands import Banded as Banded
from .codes.bands import banded_contexts as banded_contexts
from .codes.co_occurrence import CoOccurrence as CoOccurrence
from .codes.co_occurrence import active as active
from .codes.co_occurrence import co_occurrence as co_occurrence
from .codes.contexts import KINDS as KINDS
from .codes.contexts import Clarity as Clarity
from .codes.contexts import TokenShares as TokenShares
from .codes.contexts import TopContexts as TopContexts
from .codes.contexts import activations_around as activations_around
from .codes.contexts import clarity as clarity
from .codes.contexts import token_kind as token_kind
from .codes.contexts import token_kinds as token_kinds
from .codes.contexts import token_shares as token_shares
from .codes.contexts import token_words as token_words
from .codes.contexts import top_contexts as top_contexts
from .codes.interference import Features as Features
from .codes.interference import SignedInterference as SignedInterference
from .codes.interference import signed_interference as signed_interference
from .codes.lifetime import feature_sparsity as feature_sparsity
from .codes.mixtures import QUANTILES as QUANTILES
from .codes.mixtures import Mixtures as Mixtures
from .codes.mixtures import mixtures as mixtures
from .codes.partners import Company as Company
from .codes.partners import company as company
from .codes.polysemanticity import Mixing as Mixing
from .codes.polysemanticity import effective_features as effective_features
from .codes.polysemanticity import polysemanticity as polysemanticity
from .codes.read_out import ReadOutInterference as ReadOutInterference
from .codes.read_out import read_out_interference as read_out_interference
from .codes.sparsity import code_gini as code_gini
from .codes.sparsity import code_sparsity as code_sparsity
from .codes.sparsity import effective_number as effective_number
from .codes.sparsity import excess_kurtosis as excess_kurtosis
from .codes.sparsity import gini as gini
from .codes.sparsity import hoyer as hoyer
from .codes.sparsity import participation_number as participation_number
from .codes.sparsity import treves_rolls as treves_rolls
from .codes.tuning import Tuning as Tuning
from .codes.tuning import neuron_tuning as neuron_tuning
from .counts.baselines.intrinsic import intrinsic_dimensions as intrinsic_dimensions
from .counts.certified import Certificates as Certificates
from .counts.certified import certified_count as certified_count
from .counts.certified import e_benjamini_hochberg as e_benjamini_hochberg
from .counts.cumulants import Cumulants as Cumulants
from .counts.cumulants import cumulant_rank as cumulant_rank
from .counts.lp_exponent import LpExponent as LpExponent
from .counts.lp_exponent import kl_divergence as kl_divergence
from .counts.lp_exponent import lp_exponent as lp_exponent
from .evidence import Evidence as Evidence
from .evidence import Wanted as Wanted
from .geometry.axes import AxisAlignment as AxisAlignment
from .geometry.axes import axis_alignment as axis_alignment
from .geometry.capacity import capacities as capacities
from .geometry.capacity import capacity_used as capacity_used
from .geometry.capacity import dimensions_per_feature as dimensions_per_feature
from .geometry.capacity import effective_dimensions as effective_dimensions
from .geometry.capacity import weighted_interference_energy as weighted_interference_energy
from .geometry.flat_map import FlatMap as FlatMap
from .geometry.flat_map import flat_map as flat_map
from .geometry.isometry import Isometry as Isometry
from .geometry.isometry import isometry as isometry
from .geometry.maps import MAPS as MAPS
from .geometry.maps import laid_flat as laid_flat
from .geometry.maps import procrustes as procrustes
from .geometry.maps import row_neighbours_kept as row_neighbours_kept
from .geometry.overlap import Babel as Babel
from .geometry.overlap import Histogram as Histogram
from .geometry.overlap import Nearest as Nearest
from .geometry.overlap import Pairs as Pairs
from .geometry.overlap import babel as babel
from .geometry.overlap import coherence as coherence
from .geometry.overlap import coherent_pairs as coherent_pairs
from .geometry.overlap import cosine_histogram as cosine_histogram
from .geometry.overlap import frame_potential as frame_potential
from .geometry.overlap import interference_energy as interference_energy
from .geometry.overlap import mean_max_cosine as mean_max_cosine
from .geometry.overlap import nearest as nearest
from .geometry.overlap import nearest_histogram as nearest_histogram
from .geometry.polytope import Polytope as Polytope
from .geometry.polytope import nearest_polytope as nearest_polytope
from .geometry.polytope import polytopes as polytopes
from .geometry.polytope import tegum_name as tegum_name
from .geometry.weights import weight_sparsity as weight_sparsity
from .interval import Interval as Interval
from .interval import bootstrap as bootstrap
from .interval import jackknife as jackknife
from .interval import over_seeds as over_seeds
from .interval import wilson as wilson
from .metric import Declaration as Declaration
from .metric import metric as metric
from .power_law import PowerLaw as PowerLaw
from .power_law import power_law as power_law
from .power_law import power_law_above_floor as power_law_above_floor
from .power_law import straight_line as straight_line
from .reconstruction import Evaluation as Evaluation
from .reconstruction import cross_entropy_recovered as cross_entropy_recovered
from .reconstruction import evaluate as evaluate
from .stream import Moments as Moments
from .stream import moments as moments
from .toy import Component as Component
from .toy import Jump as Jump
from .toy import components as components
from .toy import dimensionalities as dimensionalities
from .toy import feature_dimensionality as feature_dimensionality
from .toy import features_per_dimension as features_per_dimension
from .toy import interference as interference
from .toy import jumps as jumps
from .toy import overlaps as overlaps
from .toy import representedness as representedness
from .words import WORDS as WORDS
from .words import Word as Word
from .words import word_for as word_for

METRICS = (
    capacity_used,
    coherence,
    dimensions_per_feature,
    effective_number,
    excess_kurtosis,
    feature_dimensionality,
    feature_nearest_cosine,
    features_per_dimension,
    frame_potential,
    gini,
    hoyer,
    interference_energy,
    latent_nearest_cosine,
    mean_matched_cosine,
    mean_max_cosine,
    participation_number,
    treves_rolls,
)
"""Every function that declares its range and invariances; tests read the declarations and check them."""
