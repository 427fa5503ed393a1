#!/bin/sh
# Trains a recipe on two nodes, one process each. A minute and a half before its time limit the run saves, the job is
# requeued, and its next start goes on from there.
#
#   zoo show slurm > job.sh
#   sbatch --time=2:00:00 job.sh --config resnet
#
# Options of sbatch go before job.sh and win over the lines below; those of zoo fit go after it.
# With four GPUs in each node: sbatch --ntasks-per-node=4 --gpus-per-node=4 job.sh --config resnet

#SBATCH --job-name=zoo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --signal=USR1@90
#SBATCH --requeue
#SBATCH --open-mode=append

exec srun zoo fit --config trainer/ddp "$@" \
  --trainer.num_nodes "$SLURM_JOB_NUM_NODES" --trainer.devices "$SLURM_NTASKS_PER_NODE"
