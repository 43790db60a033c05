"""Training by many processes, each on its own shards of every batch; see `Distributed`."""

from layerkit.distributed.communicator import Alone, Communicator, alone
from layerkit.distributed.message_passing import mpi, started
from layerkit.distributed.nccl import nccl
from layerkit.distributed.sharing import Distributed
from layerkit.distributed.team import Team

__all__ = ["Alone", "Communicator", "Distributed", "Team", "alone", "mpi", "nccl", "started"]
