#!/usr/bin/env bash
# What a GPU gives, in one command and under 8 minutes:
#
#     pip install ".[examples,benchmarks,test]" "tensorflow[and-cuda]"
#     bash benchmarks/gpu.sh FOLDER
#
# The tests that a GPU could fail, the tables of train_step.py and attack.py, a short training run of
# examples/flags/cifar10_linf_gpu.flags, and AutoAttack on its network. Each
# part has a limit in seconds, so that the rest still runs, and a log of its
# own in FOLDER; summary.txt has a line a part. RECIPE=1 trains the whole
# recipe, and takes as much longer. CIFAR-10 comes from TFDS_DATA_DIR.
#
# The environment may say otherwise, as for a try on a CPU: PARTS (which),
# TESTS, SETTINGS, ATTACK_FLAGS, TRAIN_FLAGS (more flags, the last ones count),
# AUTO_FLAGS, PYTHON, and MODEL: a .keras file to attack instead of training.
set -u
folder=${1:?"usage: bash benchmarks/gpu.sh FOLDER"}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH="$PWD:$PWD/examples${PYTHONPATH:+:$PYTHONPATH}"
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}
# The parts come one after the other, but a table's rows share the GPU.
export TF_FORCE_GPU_ALLOW_GROWTH=${TF_FORCE_GPU_ALLOW_GROWTH:-true}
python=${PYTHON:-python}
parts=${PARTS:-tests pipeline small large wide attack train autoattack}
tests=${TESTS:-tests/losses/test_golden_atent.py
    tests/losses/test_golden_baselines.py tests/attacks/test_attack.py}
[ -z "${TESTS:-}" ] && [ -e tests/test_gpu.py ] && tests+=" tests/test_gpu.py"
failed=0

part() { # name, limit in seconds, command
    local name=$1 limit=$2 start=$SECONDS code
    shift 2
    [[ " $parts " == *" $name "* ]] || return 0
    timeout --kill-after=10 "$limit" "$@" >"$folder/$name.log" 2>&1
    code=$?
    case $code in
    0) said=passed ;;
    124 | 137) said="stopped after $limit s" ;;
    *) said="failed with $code" ;;
    esac
    [ $code = 0 ] || failed=1
    echo "$name: $said, $((SECONDS - start)) s" | tee -a "$folder/summary.txt"
}

step() { # name, limit, settings, rows
    local name=$1 limit=$2 settings=$3
    shift 3
    part "$name" "$limit" "$python" benchmarks/train_step.py \
        --settings="$settings" --precision=mixed_bfloat16 --noart \
        --output="$folder/$name.json" "$@"
}

: >"$folder/summary.txt"
# shellcheck disable=SC2086  # lists of words
{
    part tests 80 "$python" -m pytest -q -m "gpu or not gpu" $tests
    part pipeline 15 "$python" benchmarks/input_pipeline.py --batches=200
    two="ATENT, K=2"
    step small 85 "${SETTINGS:-PreActResNet18:10:128}" \
        --row="plain Keras" --row="PGD training" --row="$two"
    step large 50 "${SETTINGS:-PreActResNet18:10:512}" --row="$two"
    step wide 60 "${SETTINGS:-WideResNet:10:128}" --row="$two"
    part attack 60 "$python" benchmarks/attack.py --networks=PreActResNet18 \
        --images=2048 --rounds=3 --noart --output="$folder/attack.json" \
        ${ATTACK_FLAGS:-}
    epochs=(--epochs=4 --epsilon_warmup_epochs=1) limit=70
    [ -n "${RECIPE:-}" ] && epochs=() limit=900
    model=${MODEL:-$folder/run/best.keras}
    [ -n "${MODEL:-}" ] || part train "$limit" "$python" examples/cifar10.py \
        --flagfile=examples/flags/cifar10_linf_gpu.flags --verbose=2 \
        --notensorboard --output_dir="$folder/run" "${epochs[@]}" \
        --test_limit=2000 ${TRAIN_FLAGS:-}
    part autoattack 60 "$python" benchmarks/auto_attack.py --table=stages \
        --model="$model" --network=PreActResNet18 --dataset=cifar10 \
        --epsilon=0.03137254901960784 --step_size=0.00784313725490196 \
        --images=500 --output="$folder/autoattack.json" ${AUTO_FLAGS:-}
}
exit $failed
