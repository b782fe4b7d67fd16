#!/bin/bash
# Starts, stops or follows a training on all hosts of a TPU VM slice by ssh. JAX finds the hosts from TPU metadata.
#
#   launch/tpu_vm.sh start  NAME ZONE --config=configs/pretrain.py:small --workdir=/mnt/shared/run
#   launch/tpu_vm.sh stop   NAME ZONE      # SIGTERM: saves and leaves within 27 s
#   launch/tpu_vm.sh log    NAME ZONE      # process 0's log
#
# The repository and its .venv must be in ~/omni_jax on every host (launch/README.md), the workdir on a disk they share.
set -e
action=$1 name=$2 zone=$3
[ $# -ge 3 ] || { sed -n '2,9p' "$0" >&2; exit 2; }
shift 3

on_hosts() { # WORKER COMMAND
	gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --command="$2"
}

case $action in
start)
	printf -v arguments '%q ' "$@"
	# Started again after a stall or a crash, 20 times; not after success, a user's error (2) or a stop (130, 143).
	loop="cd ~/omni_jax && echo \$\$ > ~/omni_jax.pid && for start in {0..20}; do
		.venv/bin/python -m omni_jax.train $arguments; code=\$?; echo \"exit code \$code\"
		[[ \" 0 2 130 143 \" == *\" \$code \"* ]] && break; sleep 5; done"
	printf -v quoted '%q' "$loop"
	on_hosts all "nohup setsid bash -c $quoted >> ~/omni_jax.log 2>&1 < /dev/null & echo started"
	;;
stop) on_hosts all "kill -TERM -- -\$(cat ~/omni_jax.pid)" ;; # the loop and the trainer
log) on_hosts 0 "tail -n 100 -f ~/omni_jax.log" ;;
*)
	echo "error: unknown action '$action': want start, stop or log" >&2
	exit 2
	;;
esac
