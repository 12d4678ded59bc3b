"""How different clients are, axis by axis, each figure with what chance would show. numpy and SciPy only.

Two steps with a narrow waist: `profile_rows` turns one client's rows into integer counts; `measure_axes` turns the
clients' counts into figures, and sees nothing else.
"""

from fedllm_data.heterogeneity.axes import AXES, AxisResult, Estimate, measure_axes, profile_rows
from fedllm_data.heterogeneity.profile import ClientProfile, merge_profiles

__all__ = ["AXES", "AxisResult", "ClientProfile", "Estimate", "measure_axes", "merge_profiles", "profile_rows"]
