# make demo | demo-families | demo-reliability | demo-adapt | demo-genval | test | test-all | lint | bench | docs | tutorials | setup | develop | cuda | tpu | check-tpu. Needs python >= 3.11 (with venv) and make.
PYTHON ?= python3
# A Python that is named has an environment of its own: make PYTHON=python3.13 test
VENV ?= $(if $(filter python3,$(notdir $(PYTHON))),.venv,.venv-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
CAR := $(BIN)/python -m car_jax
RUNS := runs/demo
FAM := runs/families
STUDY := runs/reliability
ADAPT := runs/snow
GENVAL := runs/genval

.PHONY: setup demo demo-families demo-reliability demo-adapt demo-genval test test-all lint bench docs tutorials develop cuda tpu check-tpu compiler
setup: $(VENV)/ready

$(VENV)/ready: requirements.txt pyproject.toml
	@sh tools/setup.sh "$(PYTHON)" "$(VENV)"
	@touch $@

# What the tests and the documentation need beside.
develop: $(VENV)/develop

$(VENV)/develop: $(VENV)/ready
	@echo 'installing what the tests need'
	@sh tools/install.sh "$(VENV)" -e '.[dev]'
	@touch $@

cuda tpu: setup
	@sh tools/install.sh "$(VENV)" -e '.[$@]'
	@$(BIN)/python -c "import jax; print('jax', jax.__version__, jax.devices())"

# Compiles what trainings run for TPUs, on a machine without one: make check-tpu CHECK='car_lidc ..'
check-tpu:
	@$(MAKE) --no-print-directory VENV=$(VENV)-tpu compiler
	@$(VENV)-tpu/bin/python -m tools.check_tpu $(CHECK)

compiler: $(VENV)/compiler

$(VENV)/compiler: $(VENV)/ready
	@echo 'installing the compiler for TPUs'
	@sh tools/install.sh "$(VENV)" -e '.[tpu]'
	@touch $@

# stage N, OF WHAT: a heading, so that nobody waits without knowing for what.
stage = @printf '\n=== $(1): $(2)\n'

# The data set, CAR, MoSE, a deterministic net, and a report that compares them.
demo: setup
	@echo 'the demo: five stages, 10 to 20 minutes on two cores; run again, it continues where it stopped'
	$(call stage,1 of 5,images around real masks of four readers)
	$(CAR) prepare lidc_masks --size 64 --data-dir $(RUNS)/data
	$(call stage,2 of 5,training CAR (4 to 8 minutes))
	$(CAR) train --config configs/demo.py:car --workdir $(RUNS)/car --config.data.data_dir=$(RUNS)/data
	$(call stage,3 of 5,training MoSE (4 to 8 minutes))
	$(CAR) train --config configs/demo.py:mose --workdir $(RUNS)/mose --config.data.data_dir=$(RUNS)/data
	$(call stage,4 of 5,training a deterministic net (2 to 4 minutes))
	$(CAR) train --config configs/demo.py:deterministic --workdir $(RUNS)/deterministic --config.data.data_dir=$(RUNS)/data
	$(call stage,5 of 5,the report)
	$(CAR) eval --checkpoint CAR=$(RUNS)/car --checkpoint MoSE=$(RUNS)/mose --checkpoint deterministic=$(RUNS)/deterministic --out $(RUNS)/report

# Every family of ambiguous segmentation, trained for as long on the same images, and one report.
# Another one is a name here and in configs/families_lidc_masks.py. For an hour each instead of
# minutes: make demo-families LONGER=_hour FAM=runs/families_hour
FAMILIES := car mose ssn prob_unet phiseg ccdm flow_matching deterministic
OF_FAMILY := $(CAR) train --config.data.data_dir=$(FAM)/data --config configs/families_lidc_masks.py
demo-families: setup
	@echo 'this demo: four stages, $(if $(LONGER),hours,about 25 minutes on two fast cores); run again, it continues where it stopped'
	$(call stage,1 of 4,images around real masks of four readers)
	$(CAR) prepare lidc_masks --size 64 --data-dir $(FAM)/data
	$(call stage,2 of 4,training $(FAMILIES)$(if $(LONGER),, (2 to 3 minutes each)))
	for family in $(FAMILIES); do $(OF_FAMILY):$$family$(LONGER) --workdir $(FAM)/$$family || exit; done
	$(call stage,3 of 4,training the members of an ensemble$(if $(LONGER),, (3 minutes in all)))
	for seed in 0 1 2 3; do \
	  $(OF_FAMILY):member$(LONGER) --config.seed=$$seed --workdir $(FAM)/member/seed$$seed || exit; done
	$(call stage,4 of 4,the report: scores and costs and orders and samples side by side$(if $(LONGER),, (7 minutes)))
	$(CAR) eval $(foreach family,$(FAMILIES),--checkpoint $(family)=$(FAM)/$(family)) \
	  --checkpoint ensemble=ensemble:$(FAM)/member --checkpoint dropout=dropout:$(FAM)/deterministic \
	  --checkpoint tta=tta:$(FAM)/deterministic \
	  $(foreach name,samples argmax ensemble dropout tta,--predictor $(name)) --predictor 'independent pixels' --out $(FAM)/report

# Six segmenters of scenes in clear air, and whether they can be trusted in worsening weather.
SCENES := $(CAR) prepare street_scenes --height 64 --data-dir $(STUDY)/data
SHIFTED := $(SCENES) --count 256 --unknown 0.5 --part test
SEGMENTER := $(CAR) train --config.data.data_dir=$(STUDY)/data --config configs/segmenters_street_scenes.py
COMPARED := deeplabv3plus segformer bisenetv2 setr upernet_swin upernet_convnext
demo-reliability: setup
	@echo 'this demo: three stages, 9 to 12 minutes on two cores; run again, it continues where it stopped'
	$(call stage,1 of 3,drawn street scenes (2 minutes))
	$(SCENES) --count 400
	$(SHIFTED)
	for weather in fog night rain snow; do \
	  $(SHIFTED) --domain $$weather --strength 0.5 && $(SHIFTED) --domain $$weather || exit; done
	$(call stage,2 of 3,training six segmenters (6 minutes))
	for net in $(COMPARED); do $(SEGMENTER):$$net --workdir $(STUDY)/$$net || exit; done
	$(call stage,3 of 3,the study: six models on ten sets and a pool of eight; uncalibrated and by four calibrators (4 minutes))
	$(CAR) eval --config configs/reliability.py

# A small net adapted from clear air to snow, three seeds, and what it gained per class.
SCENE := $(CAR) prepare street_scenes --height 64 --count 400 --data-dir $(ADAPT)/data
ADAPTED := $(CAR) train --config.data.data_dir=$(ADAPT)/data --config configs/sac_street_scenes.py
demo-adapt: setup
	@echo 'this demo: four stages, about 10 minutes on two cores; run again, it continues where it stopped'
	$(call stage,1 of 4,drawn street scenes in clear air and in snow (2 minutes))
	$(SCENE)
	$(SCENE) --domain snow --seed 1
	$(SCENE) --domain fog --seed 1 --part test
	$(call stage,2 of 4,source-only and ABN and SAC with three seeds (6 minutes))
	for seed in 0 1 2; do \
	  $(ADAPTED):source --config.seed=$$seed --workdir $(ADAPT)/source/seed$$seed && \
	  $(ADAPTED):abn --config.seed=$$seed --workdir $(ADAPT)/abn/seed$$seed && \
	  $(CAR) eval --checkpoint $(ADAPT)/abn/seed$$seed --config.report.split=train \
	    --save labels --out $(ADAPT)/found/seed$$seed/report && \
	  $(BIN)/python -m car_jax.evaluate.label_maps $(ADAPT)/found/seed$$seed/arrays/argmax \
	    $(ADAPT)/found/seed$$seed/counts.npz && \
	  $(ADAPTED):sac --config.seed=$$seed --workdir $(ADAPT)/sac/seed$$seed \
	    --config.init.net=$(ADAPT)/abn/seed$$seed:net \
	    --config.data.target.counts=$(ADAPT)/found/seed$$seed/counts.npz || exit; done
	$(call stage,3 of 4,a net that sees the labels (1 minute))
	$(ADAPTED):oracle --workdir $(ADAPT)/oracle/seed0
	$(call stage,4 of 4,the two studies (1 minute))
	$(BIN)/python -m car_jax.studies.adaptation $(ADAPT) --out $(ADAPT)/study
	$(CAR) eval --config configs/reliability_adaptation.py

# Test data without weights, and whether scores on them predict those on street_scenes' own weather.
DRAWN := $(CAR) prepare street_scenes --height 64 --data-dir $(GENVAL)/data
REAL := $(DRAWN) --count 192 --seed 1 --part test
GENERATED := $(CAR) generate procedural
SNAPSHOTS := --config.steps=400 --config.save_every=100 --config.keep=4 --config.eval_every=400
demo-genval: setup
	@echo 'this demo: six stages, 6 to 12 minutes on two cores; run again, it continues where it stopped'
	$(call stage,1 of 6,scenes in generated weather and with generated objects; a page to look them through)
	$(GENERATED) style --out $(GENVAL)/generated --height 64 --stop 48
	$(GENERATED) ood --out $(GENVAL)/generated --height 64 --stop 12
	$(CAR) generate look $(GENVAL)/generated --stop 12
	$(call stage,2 of 6,what was generated as data sets)
	$(CAR) prepare generated_scenes --source $(GENVAL)/generated --data-dir $(GENVAL)/data
	$(CAR) prepare generated_objects --source $(GENVAL)/generated --data-dir $(GENVAL)/data
	$(call stage,3 of 6,drawn scenes to train on and weather and objects that stand for real ones (2 minutes))
	$(DRAWN) --count 256
	for weather in fog night rain snow; do $(REAL) --domain $$weather --strength 0.7 || exit; done
	$(REAL) --unknown 1
	$(call stage,4 of 6,training four segmenters; each is kept after 100 and after 400 steps (4 minutes))
	for net in deeplabv3plus segformer fcn8s deeplabv2; do \
	  $(CAR) train --config configs/segmenters_street_scenes.py:$$net $(SNAPSHOTS) \
	    --config.data.data_dir=$(GENVAL)/data --config.data.name=street_scenes/height64-count256 \
	    --workdir $(GENVAL)/$$net || exit; done
	$(call stage,5 of 6,the study: do scores on the generated predict those on the real (2 minutes))
	$(CAR) eval --config configs/reliability_generated.py --out $(GENVAL)/study
	$(call stage,6 of 6,the same by diffusion with small random weights: pictures without meaning (1 minute))
	$(CAR) generate tiny $(GENVAL)/tiny
	$(CAR) generate style --config configs/genval_style.py:tiny --stop 2 --out $(GENVAL)/diffusion \
	  --config.weights=$(GENVAL)/tiny/sd --config.controlnet=$(GENVAL)/tiny/controlnet
	$(CAR) generate ood --config configs/genval_ood.py:tiny --stop 2 --out $(GENVAL)/diffusion \
	  --config.weights=$(GENVAL)/tiny/inpaint
	$(CAR) generate look $(GENVAL)/diffusion

# All, or some: make test TESTS=tests/nn
test: develop
	@$(BIN)/python -m pytest $(TESTS)

# With the few tests that take half a minute and more.
test-all: develop
	@$(BIN)/python -m pytest -m '' $(TESTS)

lint: develop
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: develop
	@$(BIN)/python -m benchmarks

$(VENV)/docs: $(VENV)/ready
	@echo 'installing what builds the documentation'
	@sh tools/install.sh "$(VENV)" -e '.[docs]'
	@touch $@

# The site: site/index.html. A warning is an error.
docs: $(VENV)/docs
	@$(BIN)/python -m sphinx -q -W --keep-going -d .cache/doctrees -b html docs site
	@echo 'site/index.html'

# Runs the notebooks and keeps their outputs.
tutorials: $(VENV)/docs
	@$(BIN)/python -m tools.tutorials $(TUTORIALS)
