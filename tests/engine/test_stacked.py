import pytest

from tuner.engine.stacked import StackedEngine
from tuner.testing.engines import EngineTestCase


class TestStackedEngine(EngineTestCase):
    @pytest.fixture
    def engine(self):
        return StackedEngine(strict=True)
