#!/bin/sh
# Trains the models of configs/zoo.py and puts them into car_jax/zoo: tools/zoo.sh [NAME ..]
# It continues where it stopped. Two idle CPU cores need about an hour for all of them.
set -e
CAR=${CAR:-'.venv/bin/python -m car_jax'}
RUNS=runs/zoo
DATA=${DATA:-$RUNS/data}
ALL='mose-lidc-masks car-lidc-masks deterministic-lidc-masks
  segformer-street-scenes deeplabv3plus-street-scenes sac-street-scenes'

train() { # NAME
  $CAR train --config "configs/zoo.py:$1" --workdir "$RUNS/$1" --config.data.data_dir="$DATA"
}

for name in ${@:-$ALL}; do
  case $name in
    *-lidc-masks) $CAR prepare lidc_masks --size 64 --data-dir "$DATA" ;;
    *) $CAR prepare street_scenes --height 64 --count 400 --data-dir "$DATA" ;;
  esac
  if [ "$name" = sac-street-scenes ]; then
    $CAR prepare street_scenes --height 64 --count 400 --domain snow --seed 1 --data-dir "$DATA"
    train abn-street-scenes
  fi
  train "$name"
  [ -e "$RUNS/$name/report/results.json" ] ||
    $CAR eval --checkpoint "$name=$RUNS/$name" --out "$RUNS/$name/report"
  $CAR export "$RUNS/$name" --format hub --license apache-2.0 --out "car_jax/zoo/$name"
done
