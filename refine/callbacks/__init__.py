"""What happens beside the optimization: convergence, history, checkpoints, progress, TensorBoard."""

from refine.callbacks.checkpoint import LastCheckpoint
from refine.callbacks.convergence import Convergence
from refine.callbacks.history import History
from refine.callbacks.progress import StepProgress
from refine.callbacks.tensorboard import TensorBoard

__all__ = ["Convergence", "History", "LastCheckpoint", "StepProgress", "TensorBoard"]
