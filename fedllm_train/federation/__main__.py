"""`python -m fedllm_train.federation`."""

import sys

from fedllm_train.federation.steps import main

sys.exit(main())
