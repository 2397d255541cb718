"""A receiver outside of any app, to be named on the command line."""

import os

from domain_events import Receiver

receiver = Receiver()
receiver.register(print, f"{os.environ.get('SHOP_PREFIX', '')}extra", ["extra.*"])
