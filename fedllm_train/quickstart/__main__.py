"""`python -m fedllm_train.quickstart`."""

import sys

from fedllm_train.quickstart.steps import main

sys.exit(main())
