"""The joint step: objective, budgets, optimizer, step, devices, checkpoints, the loop, and what comes after it."""
from effjax.train.affordable import affordable
from effjax.train.budgets import Budget, Controller, Multipliers, augmented_lagrangian, check_feasible, held, violation
from effjax.train.checkpoint import latest_step, restore, save
from effjax.train.evaluate import accuracy, reestimate
from effjax.train.fit import fit
from effjax.train.harden import Hardened, decide, harden, latent, smallest
from effjax.train.memory import keep_memory
from effjax.train.objective import Aux, Objective, cross_entropy, objective
from effjax.train.optimizer import optimizer
from effjax.train.parallel import check_devices, compile_step
from effjax.train.state import TrainState, init_state
from effjax.train.step import make_step
