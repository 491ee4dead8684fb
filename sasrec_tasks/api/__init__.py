"""SASRec for notebooks, under the names of scikit-rec: the same core as the pipeline's."""

from sasrec_tasks.api.datasets import InteractionsDataset, ItemsDataset
from sasrec_tasks.api.estimators import SASRecClassifierEstimator, SASRecRegressorEstimator
from sasrec_tasks.api.recommender import SequentialRecommender
from sasrec_tasks.api.scorer import SequentialScorer

__all__ = [
    "InteractionsDataset",
    "ItemsDataset",
    "SASRecClassifierEstimator",
    "SASRecRegressorEstimator",
    "SequentialRecommender",
    "SequentialScorer",
]
