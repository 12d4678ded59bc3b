"""stub"""
def write_run_card(run): pass
