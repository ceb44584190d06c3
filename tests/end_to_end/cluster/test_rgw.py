"""The tests of test_machines.py with Ceph RGW in place of moto; tests/support/rgw.py lists its requirements."""

import pytest

from tests.end_to_end.cluster import test_machines

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

SERVER = "rgw"
MODELS = test_machines.MODELS

test_models_and_codecs = test_machines.test_models_and_codecs_run_on_different_machines
test_another_joins = test_machines.test_a_machine_is_lost_and_another_joins
test_told_to_go = test_machines.test_a_machine_that_is_shut_down_finishes_its_batch_first
