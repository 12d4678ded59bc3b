"""A generated corpus whose heterogeneity is known: who the clients are and what they write.

`clients` draws what makes one client differ from another, `tasks` draws questions with right and wrong answers,
`words` and `phrases` hold the languages. `fedllm_data.sources.synth` turns them into rows. They live beside
`sources/`, not in it, because files of `sources/` import nothing from one another. Imports numpy only.
"""
