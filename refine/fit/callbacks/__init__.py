"""What happens beside the optimization: convergence, history, checkpoints, progress, TensorBoard."""

from refine.fit.callbacks.checkpoint import LastCheckpoint
from refine.fit.callbacks.convergence import Convergence
from refine.fit.callbacks.history import History
from refine.fit.callbacks.progress import StepProgress
from refine.fit.callbacks.tensorboard import TensorBoard

__all__ = ["Convergence", "History", "LastCheckpoint", "StepProgress", "TensorBoard"]
