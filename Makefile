# Yici 一次. `make help` lists what there is.

PYTHON ?= $(shell for name in python3 python3.12 python3.11 python3.13; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$name && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/ready
HALF := $(VENV)/unfinished
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help setup demo stop test lint bench faults exchange-faults clean
.DEFAULT_GOAL := help

help:
	@echo "make setup   the environment in $(VENV), nothing else           只建立运行环境"
	@echo "make demo    start everything, run the sources, ask questions   启动演示"
	@echo "make stop    stop whatever runs here                            停止全部服务"
	@echo "make test    all tests (under ten minutes)                      运行全部测试"
	@echo "make lint    style, types, import contracts                     代码检查"
	@echo "make bench   measurements side by side                          性能对比"
	@echo "make faults  kill, stop, fill, damage; nothing may be lost     故障注入：不丢不重"
	@echo "make exchange-faults  three hubs, cut off, killed, lied to     三个枢纽的交换故障演练"
	@echo "make clean   stop, and remove state and environment             停止并删除状态与环境"

setup: $(READY)

# An installation that was cut off leaves the mark `unfinished` behind and is made again from nothing.
$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3 需要 Python 3.11、3.12 或 3.13" >&2; exit 1; }
	@rm -f $(READY)
	@if [ -e $(HALF) ] || ! $(RUN) -m pip --version >/dev/null 2>&1; then $(PYTHON) -m venv --clear $(VENV); fi
	@touch $(HALF)
	$(RUN) -m pip install --quiet --require-hashes --no-deps -r requirements.lock
	$(RUN) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@$(VENV)/bin/yici --help >/dev/null
	@rm -f $(HALF)
	@touch $(READY)

demo: setup
	@exec $(RUN) -m demo.run

stop:
	@if [ -x $(VENV)/bin/yici ]; then exec $(VENV)/bin/yici down; else echo "nothing was running 没有运行中的服务"; fi

test: setup
	$(RUN) -m pytest -ra --durations=10 -n auto --dist loadfile -m "not slow and not e2e"
	$(RUN) -m pytest -ra --durations=10 -m "e2e and not slow"

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

bench: setup
	@exec $(VENV)/bin/yici bench

# N schedules drawn from SEED, AIRFLOW of them under Airflow; ONLY=K repeats one, ARGS="--seconds 120" and others: bench/README.md.
N ?= 300
SEED ?= 1
AIRFLOW ?= 5
faults: setup
	@exec $(RUN) -m bench.faults $(N) --seed $(SEED) $(if $(ONLY),--only $(ONLY),--airflow $(AIRFLOW)) $(ARGS)

# N schedules of three hubs drawn from SEED, 100 where nothing is said; ONLY=K and ARGS as above.
exchange-faults: setup
	@exec $(RUN) -m bench.exchange_faults $(if $(filter file default undefined,$(origin N)),100,$(N)) --seed $(SEED) $(if $(ONLY),--only $(ONLY)) $(ARGS)

clean: stop
	rm -rf $(VENV) .yici .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
