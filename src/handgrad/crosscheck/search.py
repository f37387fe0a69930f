def search(problem, settings, report):
    return report
