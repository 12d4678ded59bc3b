"""DPO's implicit reward as an `evaluate` metric: a shell over `fedllm_eval.scoring.implicit_reward`."""

from typing import Any

import datasets
import evaluate

from fedllm_eval.metrics import check_config, check_inputs, check_whole
from fedllm_eval.scoring.implicit_reward import implicit_reward, ranking_accuracy

_DESCRIPTION = """\
How often, and by how much, a policy prefers the chosen to the rejected answer: by DPO's implicit reward
beta * (log pi - log pi_ref), or, with config "reference_free", by its log-probability alone, summed and per token.
Comparisons are strict: a tie is not a win, so a policy equal to its reference has accuracy 0, not 0.5.
"""

_KWARGS_DESCRIPTION = """\
Args:
    chosen (list of float): log-probability of each chosen answer under the policy, summed over its tokens, in nats.
    rejected (list of float): the same of the rejected answers.
    ref_chosen, ref_rejected (list of float): the same under the reference; not with config "reference_free".
    chosen_tokens, rejected_tokens (list of int): answer lengths, positive; config "reference_free" only.
    beta (float): DPO's beta, default 0.1; scales margin, loss and rewards, not the accuracy.

Returns:
    implicit_reward_accuracy (float): share of pairs in [0, 1] whose chosen answer gained more over the reference.
    implicit_reward_margin (float): mean difference of the two rewards; 0 for a policy equal to its reference.
    implicit_reward_loss (float): mean of -log sigmoid(margin); log 2 for a policy equal to its reference.
    chosen_reward, rejected_reward (float): mean rewards.
    tie_fraction (float): share of pairs with margin 0.
    num_pairs (int): what the numbers rest on.
    With config "reference_free" instead: ranking_accuracy, ranking_accuracy_per_token, tie_fraction, num_pairs.

No pairs or a value that is not finite is an error (`MetricError`), never a score of 0.

Examples:
    >>> import evaluate
    >>> from fedllm_eval.metrics import METRIC_FOLDERS
    >>> metric = evaluate.load(str(METRIC_FOLDERS["dpo_implicit_reward"]))
    >>> result = metric.compute(
    ...     chosen=[-10.0, -5.0], rejected=[-12.0, -5.0], ref_chosen=[-11.0, -5.0], ref_rejected=[-11.0, -5.0],
    ...     beta=0.5,
    ... )
    >>> result["implicit_reward_accuracy"], result["implicit_reward_margin"], result["tie_fraction"]
    (0.5, 0.5, 0.5)
    >>> ranking = evaluate.load(str(METRIC_FOLDERS["dpo_implicit_reward"]), "reference_free")
    >>> ranking.compute(chosen=[-4.0], rejected=[-6.0], chosen_tokens=[1], rejected_tokens=[3])["ranking_accuracy"]
    1.0
"""

_CITATION = """\
@inproceedings{rafailov2023direct,
  title = {Direct Preference Optimization: Your Language Model is Secretly a Reward Model},
  author = {Rafailov, Rafael and Sharma, Archit and Mitchell, Eric and Manning, Christopher D. and Ermon, Stefano and
            Finn, Chelsea},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2023}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class DpoImplicitRewardMetric(evaluate.Metric):  # type: ignore[misc]
    """Preference accuracy of a policy."""

    def _info(self) -> Any:
        check_config("dpo_implicit_reward", self.config_name)
        features = {"chosen": datasets.Value("float64"), "rejected": datasets.Value("float64")}
        if self.config_name == "reference_free":
            features |= {"chosen_tokens": datasets.Value("float64"), "rejected_tokens": datasets.Value("float64")}
        else:
            features |= {"ref_chosen": datasets.Value("float64"), "ref_rejected": datasets.Value("float64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(features),
            reference_urls=["https://arxiv.org/abs/2305.18290"],
        )

    def _compute(
        self,
        chosen: list[float],
        rejected: list[float],
        ref_chosen: list[float] | None = None,
        ref_rejected: list[float] | None = None,
        chosen_tokens: list[int] | None = None,
        rejected_tokens: list[int] | None = None,
        beta: float | None = None,
        **foreign: object,
    ) -> dict[str, float]:
        own = {
            "ref_chosen": ref_chosen,
            "ref_rejected": ref_rejected,
            "chosen_tokens": chosen_tokens,
            "rejected_tokens": rejected_tokens,
            "beta": beta,
        }
        check_inputs("dpo_implicit_reward", self.config_name, {**foreign, **own})
        check_whole(chosen_tokens=chosen_tokens, rejected_tokens=rejected_tokens)
        if self.config_name == "reference_free":
            summed = ranking_accuracy(chosen, rejected)
            per_token = ranking_accuracy(chosen, rejected, chosen_tokens, rejected_tokens)
            return {
                "ranking_accuracy": summed.accuracy,
                "ranking_accuracy_per_token": per_token.accuracy,
                "tie_fraction": summed.tie_fraction,
                "num_pairs": summed.num_pairs,
            }
        assert ref_chosen is not None
        assert ref_rejected is not None
        reward = implicit_reward(chosen, rejected, ref_chosen, ref_rejected, 0.1 if beta is None else beta)
        return {
            "implicit_reward_accuracy": reward.accuracy,
            "implicit_reward_margin": reward.margin,
            "implicit_reward_loss": reward.loss,
            "chosen_reward": reward.chosen_reward,
            "rejected_reward": reward.rejected_reward,
            "tie_fraction": reward.tie_fraction,
            "num_pairs": reward.num_pairs,
        }
