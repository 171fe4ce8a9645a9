#!/usr/bin/env bash
# A job of slimdiffsr as a SLURM array: one task a shard. Plan first, then
#
#   sbatch --array=0-63 deploy/slurm.sh /shared/job          # as many tasks as the job has shards
#   sbatch --dependency=afterany:JOBID --wrap "slimdiffsr finish /shared/job"
#
# A task that is killed, preempted or drained is queued again and goes on; what it leaves is also
# taken over by the others. For cards add: --gres=gpu:1 (and plan with --device cuda).
#SBATCH --job-name=slimdiffsr
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slimdiffsr-%A-%a.log
set -euo pipefail
job=${1:?usage: sbatch --array=0-N deploy/slurm.sh JOB}
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-2}
exec slimdiffsr work "$job" # its shard is SLURM_ARRAY_TASK_ID
