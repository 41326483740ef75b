#!/bin/sh
# Waits for an EvalRun and ends with 0 for Pass, 1 for Fail, 2 for Inconclusive, 10 where there is no verdict.
#
#   wait-for-verdict.sh NAMESPACE NAME [TIMEOUT]     TIMEOUT as kubectl writes it, such as 2h (1h)
set -u
if [ $# -lt 2 ]; then
  echo "usage: $0 NAMESPACE NAME [TIMEOUT]" >&2
  exit 10
fi
namespace=$1 name=$2 timeout=${3:-1h}

kubectl --namespace "$namespace" wait "evalrun/$name" --for=jsonpath='{.status.completionTime}' \
  --timeout="$timeout" >&2 || exit 10
verdict=$(kubectl --namespace "$namespace" get evalrun "$name" --output jsonpath='{.status.verdict}') || exit 10
kubectl --namespace "$namespace" get evalrun "$name" \
  --output jsonpath='{.status.conditions[?(@.type=="Ready")].message}{.status.table}{"\n"}' >&2

case $verdict in
  Pass) exit 0 ;;
  Fail) exit 1 ;;
  Inconclusive) exit 2 ;;
  *) exit 10 ;;
esac
